"""What we ask of Dagster's GraphQL."""

JOBS = """
query Jobs { repositoriesOrError { __typename
  ... on RepositoryConnection { nodes { name location { name } jobs { name description tags { key value }
    solids { name definition { ... on SolidDefinition { configField { configType {
      ... on CompositeConfigType { fields { name } } } } } } } } } }
  ... on PythonError { message } } }
"""

LOCATIONS = """
query Locations { workspaceOrError { __typename
  ... on Workspace { locationEntries { name loadStatus
    locationOrLoadError { __typename ... on PythonError { message } } } }
  ... on PythonError { message } } }
"""

IMAGES = """
query Images { workspaceOrError { __typename
  ... on Workspace { locationEntries { name displayMetadata { key value } } }
  ... on PythonError { message } } }
"""

RELOAD = """
mutation Reload($location: String!) { reloadRepositoryLocation(repositoryLocationName: $location) { __typename
  ... on PythonError { message } } }
"""

LAUNCH = """
mutation Launch($job: String!, $repository: String!, $location: String!, $config: RunConfigData,
                $tags: [ExecutionTag!]) {
  launchRun(executionParams: {
    selector: {jobName: $job, repositoryName: $repository, repositoryLocationName: $location},
    runConfigData: $config, executionMetadata: {tags: $tags}}) { __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on RunConfigValidationInvalid { errors { message } }
  ... on Error { message } } }
"""

RUNS = """
query Runs($filter: RunsFilter, $limit: Int) { runsOrError(filter: $filter, limit: $limit) { __typename
  ... on Runs { results { runId jobName status startTime endTime tags { key value } } }
  ... on Error { message } } }
"""

RUN = """
query Run($run: ID!) { runOrError(runId: $run) { __typename
  ... on Run { runId jobName status startTime endTime tags { key value } }
  ... on Error { message } } }
"""

EVENTS = """
query Events($run: ID!, $after: String) { logsForRun(runId: $run, afterCursor: $after, limit: 500) { __typename
  ... on EventConnection { cursor hasMore events { __typename
    ... on MessageEvent { message timestamp level stepKey }
    ... on ErrorEvent { error { message errorChain { error { message } } } }
    ... on ExecutionStepFailureEvent { failureMetadata { description } }
    ... on ExecutionStepUpForRetryEvent { secondsToWait error { message errorChain { error { message } } } }
    ... on MaterializationEvent { partition assetKey { path } metadataEntries { __typename label
      ... on TextMetadataEntry { text } ... on UrlMetadataEntry { url } ... on IntMetadataEntry { intRepr }
      ... on FloatMetadataEntry { floatRepr: floatValue } ... on BoolMetadataEntry { boolValue }
      ... on JsonMetadataEntry { jsonString } } }
    ... on AssetCheckEvaluationEvent { evaluation { checkName success severity description assetKey { path } } } } }
  ... on Error { message } } }
"""

DELETE = """
mutation Delete($run: String!) { deleteRun(runId: $run) { __typename ... on Error { message } } }
"""

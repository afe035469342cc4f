"""What a bike station looks like: entities, views, services, and the transforms that offline and online share.

A team that swaps its use case in edits the repository's feature_repo in place and leaves its generic modules as they
are. Here the second use case stands beside the first: what is not in this folder comes from the repository's.
"""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)

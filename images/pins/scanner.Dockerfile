# The scanner of known vulnerabilities: FLIGHTDECK_SCANNER=trivy runs this (docs/images.md#known-vulnerabilities).
FROM aquasec/trivy:0.75.0@sha256:af6acf9a6b85dfe389a1941505c0ce9efef52a4719635e1a962f022a3d855daa

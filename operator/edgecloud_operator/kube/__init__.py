"""The Kubernetes shell of the operator: what the control loop needs of an API server, by kopf and kubernetes.aio."""

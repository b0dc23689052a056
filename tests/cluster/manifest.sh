#!/usr/bin/env bash
# Prints manifests/operator.yaml: the chart with its default values, for kubectl instead of Helm. $HELM names the helm.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cat << 'YAML'
# Made from charts/ by `make manifests`; a test compares the two. The TrainingJob resource itself is crd.yaml beside it:
#   kubectl apply -f manifests/
# The images have to be built and pushed first (make images), and your registry written before their names: at image:,
# --trainer-image=, --edge-image= and --launcher-image= below. README.md beside it does that in one line.
apiVersion: v1
kind: Namespace
metadata:
  name: edgecloud-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
YAML
# Helm's own labels say who looks after an object, and here Helm doesn't.
"${HELM:-helm}" template edgecloud charts --namespace edgecloud-system --set crds.install=false --kube-version 1.36.0 --skip-tests \
  | sed -e '/^# Source: /d' -e '/^ *helm\.sh\/chart: /d' -e '/^ *app\.kubernetes\.io\/managed-by: Helm$/d'

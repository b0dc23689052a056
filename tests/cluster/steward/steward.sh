#!/bin/bash
# Runs on the control plane node, as a service. Two things that a cloud would do:
#   - a volume for each claim of the classes edgecloud-rwo and edgecloud-rwx, in a folder that all nodes share
#   - GPUs, pretended ones, on every node
# It looks whenever a claim, a volume or a node has changed.
set -euo pipefail
export KUBECONFIG=/etc/kubernetes/admin.conf
storage=/var/lib/edgecloud-volumes
gpus=4

make_volumes() {
  local class uid namespace name size modes fields
  fields='{.spec.storageClassName}{"\t"}{.metadata.uid}{"\t"}{.metadata.namespace}{"\t"}{.metadata.name}{"\t"}'
  fields+='{.spec.resources.requests.storage}{"\t"}{.spec.accessModes}{"\n"}'
  kubectl get persistentvolumeclaims --all-namespaces \
    -o jsonpath='{range .items[?(@.status.phase=="Pending")]}'"$fields{end}" \
    | while IFS=$'\t' read -r class uid namespace name size modes; do
      case $class in
        edgecloud-rwx) ;;
        edgecloud-rwo) [[ $modes != *Many* ]] || continue ;; # as in a cloud: such a claim waits for ever
        *) continue ;;
      esac
      mkdir -p "$storage/$uid"
      chmod 777 "$storage/$uid"
      kubectl create -f - << VOLUME || true # there already: made, not bound yet
{
  "apiVersion": "v1", "kind": "PersistentVolume",
  "metadata": {"name": "edgecloud-$uid"},
  "spec": {
    "storageClassName": "$class", "accessModes": $modes, "capacity": {"storage": "$size"},
    "persistentVolumeReclaimPolicy": "Retain",
    "hostPath": {"path": "$storage/$uid", "type": "Directory"},
    "claimRef": {
      "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "$namespace", "name": "$name", "uid": "$uid"
    }
  }
}
VOLUME
    done
}

remove_volumes() {
  local name
  kubectl get persistentvolumes -o jsonpath='{range .items[?(@.status.phase=="Released")]}{.metadata.name}{"\n"}{end}' \
    | while read -r name; do
      [[ $name =~ ^edgecloud-[0-9a-f-]{36}$ ]] || continue
      rm -rf "${storage:?}/${name#edgecloud-}"
      kubectl delete persistentvolume "$name" --wait=false
    done
}

# A kubelet that starts anew takes back what it doesn't know.
put_gpus() {
  local name has
  kubectl get nodes -o jsonpath='{range .items[*]}{.metadata.name}{"\t"}{.status.allocatable.nvidia\.com/gpu}{"\n"}{end}' \
    | while IFS=$'\t' read -r name has; do
      [ "$has" = "$gpus" ] || kubectl patch node "$name" --subresource=status --type=merge \
        -p '{"status": {"capacity": {"nvidia.com/gpu": "'$gpus'"}, "allocatable": {"nvidia.com/gpu": "'$gpus'"}}}'
    done
}

# A line for each change. Where one watch ends all do, and the service starts anew.
changes() {
  local what
  for what in persistentvolumeclaims persistentvolumes nodes; do
    kubectl get "$what" --all-namespaces --watch -o name &
  done
  wait -n
  # shellcheck disable=SC2046 # process ids
  kill $(jobs -p)
}

until kubectl get --raw /readyz > /dev/null; do
  sleep 1
done
exec 3< <(changes)
while true; do
  put_gpus
  make_volumes
  remove_volumes
  read -r -u 3
  while read -r -t 0.1 -u 3; do :; done # what comes together is looked at once
done

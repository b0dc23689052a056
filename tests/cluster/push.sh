#!/usr/bin/env bash
# Gives an image to the cluster's nodes.
#
#   tests/cluster/push.sh edgecloud/trainer:dev      prints its name there: registry.edgecloud.local:5000/edgecloud/trainer:dev
#
# Takes it from the Docker that answers, or from buildah. Layers that were pushed before are not moved again.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/cluster/versions.sh
source "$here/versions.sh"

[ $# -eq 1 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }
image=${1#localhost/}
[ -s "$CACHE/cluster/registry" ] || fail "no registry: make cluster brings it up"
registry=$(cat "$CACHE/cluster/registry")

if docker image inspect "$image" > /dev/null 2>&1; then
  # The nodes' Docker or another one: it pushes from where it is, or not at all.
  docker tag "$image" "$registry/$image"
  docker push --quiet "$registry/$image" >&2
  docker image rm "$registry/$image" > /dev/null
elif command -v buildah > /dev/null && buildah inspect --type image "localhost/$image" > /dev/null 2>&1; then
  "$here/cluster.sh" network buildah push --quiet --tls-verify=false --format oci --disable-compression \
    "localhost/$image" "docker://$registry/$image" >&2
else
  fail "neither docker nor buildah has an image $image: tests/cluster/images.sh builds the project's"
fi
echo "registry.edgecloud.local:5000/$image"

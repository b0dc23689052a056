#!/usr/bin/env bash
# A Kubernetes cluster of two nodes for the end-to-end tests, made by kind.
#
#   tests/cluster/cluster.sh up        brings it up, or finds it up; the one line it prints is the path of the KUBECONFIG
#   tests/cluster/cluster.sh down      takes it away, and everything that came with it
#   tests/cluster/cluster.sh docker …  the docker command, against the Docker that runs the nodes
#   tests/cluster/cluster.sh network … a command in the network where the nodes' addresses can be reached
#
#   CLUSTER=existing KUBECONFIG=… EDGECLOUD_CONTEXT=…   takes a cluster that is there, if that is its current context
#   NODE_IMAGE=kindest/node:v1.35.1   these nodes; NODE_IMAGE=own: the image that node/build.sh makes
#   EDGECLOUD_OWN_DOCKER=1            a dockerd of our own even where Docker answers
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/cluster/versions.sh
source "$here/versions.sh"

STATE=$CACHE/cluster
LOGS=$STATE/logs
if [ "$(id -u)" = 0 ]; then RUN=/run/edgecloud; else RUN=$STATE/run; fi
name=edgecloud
nodes=("$name-control-plane" "$name-worker")
kubeconfig=$STATE/kubeconfig

# shellcheck source=tests/cluster/processes.sh
source "$here/processes.sh"
# shellcheck source=tests/cluster/docker.sh
source "$here/docker.sh"
# shellcheck source=tests/cluster/registry.sh
source "$here/registry.sh"

kubectl() { "$BIN/kubectl" --kubeconfig "$kubeconfig" "$@"; }

existing() {
  local context
  [ -n "${KUBECONFIG:-}" ] || fail "CLUSTER=existing takes the cluster of \$KUBECONFIG, and that is not set"
  command -v kubectl > /dev/null || PATH=$BIN:$PATH
  context=$(command kubectl config current-context 2> /dev/null) || fail "$KUBECONFIG has no current context"
  [ "${EDGECLOUD_CONTEXT:-}" = "$context" ] || fail "the current context of $KUBECONFIG is '$context' and EDGECLOUD_CONTEXT" \
    "is '${EDGECLOUD_CONTEXT:-}': if the tests may work there, set EDGECLOUD_CONTEXT=$context"
  echo "$KUBECONFIG"
}

# healthy: whether everything runs; nodes that a test has stopped are started again
healthy() {
  [ -e "$kubeconfig" ] || return 1
  if own_docker; then
    { running dockerd && running registry; } || return 1
    docker start "${nodes[@]}" > /dev/null 2>&1 || return 1
    running forward || start_forward
  else
    docker start "${nodes[@]}" $REGISTRY_CONTAINER > /dev/null 2>&1 || return 1
  fi
  # A node's condition says for most of a minute what it was before a restart.
  within 60 answers && within 60 kubelets_run && kubectl wait --for=condition=Ready nodes --all --timeout=90s > /dev/null
}

kubelets_run() {
  local node
  for node in "${nodes[@]}"; do
    docker exec "$node" systemctl is-active --quiet kubelet || return 1
  done
}

answers() { kubectl get --raw /readyz --request-timeout=2s > /dev/null 2>&1; }

up() {
  local begun=$SECONDS image own=false port
  if healthy; then
    say "cluster: up already ($((SECONDS - begun)) s)"
    echo "$kubeconfig"
    return
  fi
  down
  kubeconfig=$STATE/kubeconfig.new # until all is there
  find_docker
  "$here/tools.sh" cluster >&2
  choose_image
  mkdir -p "$STATE/volumes"
  remember_settings
  if own_docker; then
    start_docker
    remove_nodes # of a machine that went down with its cluster
  fi
  [ "$own" = false ] || load_image
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  find_node_images
  write_config > "$STATE/kind.yaml"
  claim_nodes
  create_nodes
  if own_docker; then
    start_forward
  fi
  start_registry
  within 60 answers || fail "the API server does not answer"
  start_steward
  kubectl wait --for=condition=Ready nodes --all --timeout=120s > /dev/null
  kubectl -n kube-system rollout status deployment/coredns --timeout=120s > /dev/null
  within 60 gpus_there || fail "no GPUs on the nodes; cluster.sh docker exec ${nodes[0]} journalctl -u edgecloud-steward"
  mv "$kubeconfig" "$STATE/kubeconfig"
  say "cluster: up in $((SECONDS - begun)) s; images go to $REGISTRY_NAME by tests/cluster/push.sh"
  echo "$STATE/kubeconfig"
}

# choose_image: sets image, and own to whether it is the one that we make
choose_image() {
  image=${NODE_IMAGE:-kindest/node:$KUBERNETES}
  if own_docker; then
    [ "${NODE_IMAGE:-own}" = own ] || fail "a dockerd of our own reaches nothing that it could pull $NODE_IMAGE from"
    image=own
  fi
  if [ "$image" != own ]; then
    docker image inspect "$image" > /dev/null 2>&1 && return
    say "pulling $image"
    timeout "${PULL_SECONDS:-300}" docker pull --quiet "$image" > "$LOGS/pull.log" 2>&1 && return
    [ -z "${NODE_IMAGE:-}" ] || fail "$image can't be pulled: $(tail -n 1 "$LOGS/pull.log")"
    say "it can't be pulled, so we make one"
  fi
  read -r image image_file < <("$here/node/build.sh")
  [ -e "${image_file:-}" ] || fail "no node image"
  own=true
}

# find_node_images: $node_images, what the nodes of the cluster before have pulled and unpacked, if the nodes are ours
find_node_images() {
  node_images=
  [ "$own" = true ] || return 0
  node_images=$CACHE/nodes/${image##*:}
  mkdir -p "$CACHE/nodes"
  # of an older node image
  find "$CACHE/nodes" -mindepth 1 -maxdepth 1 ! -path "$node_images" -exec rm -rf --one-file-system {} +
}

create_nodes() {
  local kept
  kept=$(find "${node_images:-/dev/null}" -mindepth 1 -maxdepth 1 -print -quit 2> /dev/null || true)
  ! create || return 0
  [ -n "$kept" ] || fail "kind create failed; the nodes are kept for a look"
  # A machine that went down in the midst of a pull may have left anything there.
  say "trying without the images that the nodes had"
  remove_nodes
  rm -rf --one-file-system "$node_images"
  create || fail "kind create failed; the nodes are kept for a look"
}

create() {
  [ -z "$node_images" ] || mkdir -p "$node_images"/{control-plane,worker}
  "$BIN/kind" create cluster --config "$STATE/kind.yaml" --image "$image" --kubeconfig "$kubeconfig" --retain \
    > "$LOGS/kind.log" 2>&1 || { tail -n 30 "$LOGS/kind.log" >&2; return 1; }
}

load_image() { docker image inspect "$image" > /dev/null 2>&1 || docker load --quiet --input "$image_file" > /dev/null; }

write_config() {
  local without='|'
  [ "$own" = true ] || without+='own image|'
  [ ! -e /sys/fs/cgroup/cgroup.controllers ] || without+='cgroup v1|'
  awk -v without="$without" \
    '/^[^ ]/ { tag = $0; off = sub(/^- \| # /, "", tag) && index(without, "|" tag "|") } !off' "$here/kind.yaml" \
    | sed "${node_images:+s|@IMAGES@|$node_images|;}/@IMAGES@/,+1d
      s|@PORT@|$port|; s|@OWN_IMAGE@|$own|; s|@VOLUMES@|$STATE/volumes|"
}

start_forward() {
  start forward python3 "$here/forward.py" "$RUN/network" \
    "$(sed -n 's|^ *server: https://127\.0\.0\.1:||p' "$kubeconfig")"
}

start_steward() {
  docker cp "$here/steward/steward.sh" "${nodes[0]}:/usr/local/bin/edgecloud-steward" > /dev/null
  docker cp "$here/steward/edgecloud-steward.service" "${nodes[0]}:/etc/systemd/system/" > /dev/null
  docker exec "${nodes[0]}" systemctl enable --now --quiet edgecloud-steward
  kubectl delete storageclass --all > /dev/null
  kubectl apply -f "$here/steward/classes.yaml" > /dev/null
}

gpus_there() {
  [ "$(kubectl get nodes -o jsonpath='{.items[*].status.allocatable.nvidia\.com/gpu}')" = "4 4" ]
}

# down: from whatever state it is in
down() {
  [ -d "$RUN" ] || [ -e "$kubeconfig" ] || [ -e "$STATE/nodes-are-ours" ] || return 0
  rm -f "$kubeconfig" "$STATE"/kubeconfig.* # first of all: nobody shall find half a cluster
  stop forward
  if own_docker && [ -e "$RUN/network" ]; then
    # Nodes whose dockerd was killed run on; started anew, it knows them.
    running dockerd || start_docker
  fi
  if docker_answers; then
    remove_nodes
    stop_registry
    own_docker || ! docker image ls --quiet edgecloud/node | grep -q . \
      || docker image ls --quiet edgecloud/node | sort -u | xargs docker image rm --force > /dev/null
  fi
  if own_docker; then
    stop_docker
    leave_no_mount "$RUN"
    restore_settings
    [ ! -e "$RUN/key-is-ours" ] || rm -f /etc/docker/key.json
    rmdir /run/docker/plugins /run/docker /etc/docker 2> /dev/null || true
  fi
  rm -rf --one-file-system "$STATE/volumes" "$STATE/registry" "$STATE/kind.yaml" "$RUN"
}

# nodes_there: the containers of kind clusters of our name
nodes_there() { docker ps --all --quiet --filter "label=io.x-k8s.kind.cluster=$name"; }

# nodes_are_ours: a Docker that was found may have a cluster of that name that is somebody else's
nodes_are_ours() { own_docker || [ -e "$STATE/nodes-are-ours" ]; }

# claim_nodes: before they are made. Ours that a down could not remove, for Docker did not answer, go; no others.
claim_nodes() {
  local there
  remove_nodes
  there=$(nodes_there)
  [ -z "$there" ] || fail "there is a kind cluster named $name that isn't ours; if nobody needs it:" \
    "kind delete cluster --name $name"
  own_docker || touch "$STATE/nodes-are-ours"
}

remove_nodes() {
  nodes_are_ours || return 0
  # Root's files, which we may not be allowed to remove ourselves
  docker exec "${nodes[0]}" find /var/lib/edgecloud-volumes -mindepth 1 -delete > /dev/null 2>&1 || true
  nodes_there | xargs --no-run-if-empty docker rm --force --volumes > /dev/null
  own_docker || rm -f "$STATE/nodes-are-ours"
}

[ $# -gt 0 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }
if own_docker; then
  export DOCKER_HOST=unix://$RUN/docker.sock
fi
case $1 in
  up | down)
    case ${CLUSTER:-kind} in
      existing)
        [ "$1" = down ] || existing
        exit ;;
      kind) ;;
      *) fail "CLUSTER is kind or existing, not $CLUSTER" ;;
    esac
    mkdir -p "$LOGS"
    exec 9> "$CACHE/.cluster.lock"
    flock 9
    "$1" ;;
  docker) exec "$@" ;;
  network)
    shift
    in_network "$@" ;;
  *) fail "what is '$1'? There are up, down, docker and network" ;;
esac

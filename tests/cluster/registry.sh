# shellcheck shell=bash disable=SC2154 # sourced by cluster.sh: a registry that the nodes know as $REGISTRY_NAME
# Where Docker is our own, Debian's docker-registry in Docker's network; else registry:2 as a container on the nodes'
# network. What was pushed stays in the cache, so that the next cluster need not be given the big layers again.
REGISTRY_NAME=registry.edgecloud.local:5000
REGISTRY_CONTAINER=edgecloud-registry

# start_registry: and writes into $STATE/registry where `docker push` finds it
start_registry() {
  local inside
  if own_docker; then
    mkdir -p "$CACHE/registry"
    printf '%s\n' 'version: 0.1' 'log: {level: warn}' "storage: {filesystem: {rootdirectory: $CACHE/registry}}" \
      'http: {addr: "0.0.0.0:5000"}' > "$RUN/registry.yml"
    start registry nsenter --net="$RUN/network" /usr/bin/docker-registry serve "$RUN/registry.yml"
    echo 127.0.0.1:5000 > "$STATE/registry"
    within 30 registry_answers || { tail "$LOGS/registry.log" >&2; fail "the registry does not answer"; }
    inside=http://$(gateway):5000
  else
    docker run --detach --restart=unless-stopped --network kind --publish 127.0.0.1::5000 \
      --volume edgecloud-registry:/var/lib/registry --name $REGISTRY_CONTAINER registry:2 > "$LOGS/registry.log" 2>&1 \
      || { tail -n 3 "$LOGS/registry.log" >&2; fail "the registry does not start"; }
    docker port $REGISTRY_CONTAINER 5000/tcp | head -n 1 > "$STATE/registry"
    inside=http://$REGISTRY_CONTAINER:5000
  fi
  for node in "${nodes[@]}"; do
    docker exec -i "$node" sh -c "mkdir -p /etc/containerd/certs.d/$REGISTRY_NAME
      cat > /etc/containerd/certs.d/$REGISTRY_NAME/hosts.toml" << HOSTS
server = "$inside"

[host."$inside"]
  capabilities = ["pull", "resolve"]
HOSTS
  done
}

gateway() { docker network inspect kind -f '{{range .IPAM.Config}}{{println .Gateway}}{{end}}' | grep -m 1 '^[0-9.]*$'; }

registry_answers() { in_network curl --silent --fail --noproxy '*' --output /dev/null "http://$(cat "$STATE/registry")/v2/"; }

stop_registry() {
  if own_docker; then
    stop registry
  else
    docker rm --force --volumes $REGISTRY_CONTAINER > /dev/null 2>&1 || true
    docker volume rm edgecloud-registry > /dev/null 2>&1 || true
  fi
}

# shellcheck shell=bash disable=SC2034 # sourced: the versions of everything that a cluster is made of, and where it is kept
KUBERNETES=v1.36.3
ETCD=v3.6.16
CONTAINERD=v2.2.9
COREDNS=v1.12.4
CNI=v1.7.1
CRICTL=v1.34.0
KIND=v0.33.0
HELM=v3.19.0

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/edgecloud
BIN=$CACHE/bin

say() { echo "$*" >&2; }
fail() {
  say "$(basename "$0"): $*"
  exit 1
}

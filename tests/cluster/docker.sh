# shellcheck shell=bash disable=SC2154 # sourced by cluster.sh: the Docker that runs the nodes, found or our own
# A dockerd of our own has a network namespace to itself, so that its bridges and its packet filter are nobody else's:
# the machine's own network is not touched, and nothing in there reaches the outside.

own_docker() { [ -e "$RUN/own" ]; }

# in_network COMMAND...: where the nodes' addresses can be reached
in_network() {
  if own_docker; then
    nsenter --net="$RUN/network" "$@"
  else
    "$@"
  fi
}

# on_debian: whether we may install packages here
on_debian() { [ "$(id -u)" = 0 ] && grep -q '^ID=debian$' /etc/os-release 2> /dev/null; }

# find_docker: decides which it will be
find_docker() {
  mkdir -p "$LOGS"
  if [ -z "${EDGECLOUD_OWN_DOCKER:-}" ] && command -v docker > /dev/null && docker info > /dev/null 2>&1; then
    mkdir -p "$RUN"
    return
  fi
  on_debian || fail "no Docker answers. Install and start it (docs.docker.com/engine/install); or as root on Debian: make cluster"
  install_packages
  mkdir -p "$RUN"
  touch "$RUN/own"
  [ -e /etc/docker/key.json ] || touch "$RUN/key-is-ours"
  export DOCKER_HOST=unix://$RUN/docker.sock
}

# install_packages: Debian's, without the services that come with them
install_packages() {
  local missing=() package policy=/usr/sbin/policy-rc.d
  for package in docker.io docker-registry debootstrap iptables iproute2 gcc libc6-dev; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null | grep -qx installed || missing+=("$package")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  say "installing ${missing[*]}"
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' > $policy
    chmod +x $policy
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  apt_install "${missing[@]}" > "$LOGS/apt.log" 2>&1 || { tail -n 20 "$LOGS/apt.log" >&2; fail "apt-get install failed"; }
  # They start at no boot either: Docker's would filter the machine's own packets.
  # Only of what we have installed: a service that was there is somebody's.
  [[ " ${missing[*]} " != *" docker.io "* ]] || systemctl disable docker.service docker.socket > /dev/null 2>&1 || true
  [[ " ${missing[*]} " != *" docker-registry "* ]] || systemctl disable docker-registry.service > /dev/null 2>&1 || true
  trap - EXIT
  [ ! -e $policy ] || [ "$(cat $policy)" != $'#!/bin/sh\nexit 101' ] || rm -f $policy
}

docker_answers() { docker version > /dev/null 2>&1; }

# start_docker: our own
start_docker() {
  local options=()
  if [ ! -e "$RUN/network" ] || ! mountpoint -q "$RUN/network"; then
    touch "$RUN/network"
    unshare --net="$RUN/network" true
  fi
  in_network ip link set lo up
  # --privileged asks for every capability there is, and runc refuses what the machine itself has not.
  if ! ((0x$(sed -n 's/^CapBnd:\t//p' /proc/self/status) >> 24 & 1)); then
    install -m 755 "$here/runc-without-resource" "$RUN/runc"
    options=(--add-runtime "edgecloud=$RUN/runc" --default-runtime edgecloud)
  fi
  # Debian's containerd, not ours for the nodes
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin start dockerd \
    nsenter --net="$RUN/network" /usr/sbin/dockerd --host "$DOCKER_HOST" --data-root "$CACHE/docker" \
    --exec-root "$RUN/docker" --pidfile "$RUN/docker.pid" --cgroup-parent /edgecloud "${options[@]}"
  within 60 docker_answers || { tail -n 20 "$LOGS/dockerd.log" >&2; fail "dockerd does not answer"; }
}

# stop_docker: our own, and everything that it leaves
stop_docker() {
  local folder
  stop dockerd 30
  leave_no_mount "$RUN"
  leave_no_mount "$CACHE/docker"
  for folder in /sys/fs/cgroup/edgecloud /sys/fs/cgroup/*/edgecloud; do
    [ ! -d "$folder" ] || find "$folder" -depth -type d -exec rmdir {} + 2> /dev/null || true
  done
}

# leave_no_mount FOLDER: neither on it nor in it
leave_no_mount() {
  local point
  awk -v folder="$1" '$5 == folder || index($5, folder "/") == 1 { print $5 }' /proc/self/mountinfo | sort -r \
    | while read -r point; do
      umount "$point" 2> /dev/null || umount --lazy "$point" || true
    done
}

# Settings of the whole machine that a kubelet changes: put back when it is gone.
machine_settings=(vm.overcommit_memory kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes)

remember_settings() { [ "$(id -u)" != 0 ] || sysctl "${machine_settings[@]}" > "$RUN/settings"; }

restore_settings() { [ ! -e "$RUN/settings" ] || sysctl --quiet --load "$RUN/settings"; }

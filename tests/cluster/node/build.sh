#!/usr/bin/env bash
# Makes a kind node image from Go modules and Debian packages, for where kindest/node can't be pulled.
#
#   tests/cluster/node/build.sh           prints the image's name and its file, which `docker load` takes
#
# What a node starts with (entrypoint, units, cgroup v1 and v2) are kind's own files, out of kind's Go module; ours are the
# runtime's configuration, the Pod network, and the components' images: one static program each, under the very names that
# kubeadm asks for. Kept as ~/.cache/edgecloud/node-TAG.tar, where TAG tells everything that went in.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/cluster/versions.sh
source "$here/../versions.sh"

suite=bookworm
packages=(
  systemd conntrack iptables nftables iproute2 ethtool util-linux mount kmod procps runc socat ca-certificates jq
)

tag=$KUBERNETES-$(cat "$here/../versions.sh" "$here"/{build.sh,oci.py,pause.c} "$here"/files/* | sha256sum | cut -c1-8)
file=$CACHE/node-$tag.tar
done_with() {
  echo "edgecloud/node:$tag $file"
  exit
}
[ ! -e "$file" ] || done_with

[ "$(id -u)" = 0 ] || fail "making the node image takes root"
for program in debootstrap gcc python3; do
  command -v "$program" > /dev/null || fail "no $program: apt-get install $program"
done
"$here/../tools.sh" kind node >&2

started=$SECONDS
exec 8> "$CACHE/.node.lock"
flock 8
[ ! -e "$file" ] || done_with # somebody else's doing, while we waited
rm -rf --one-file-system "$CACHE"/.node-*/ # of one that was killed
work=$(mktemp -d "$CACHE/.node-XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root

# base: Debian with what a node needs, stripped of what starts hardware
base() {
  debootstrap --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" "$suite" "$root"
  rm -rf "$root"/var/{lib/apt/lists,cache/apt,log}/* "$root"/usr/share/{doc,man,locale}/*
  rm -f "$root"/lib/systemd/system/{multi-user,local-fs,basic}.target.wants/* "$root"/etc/systemd/system/*.wants/* \
    "$root"/lib/systemd/system/sockets.target.wants/*{udev,initctl}* \
    "$root"/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service
  echo ReadKMsg=no >> "$root/etc/systemd/journald.conf"
  ln -sf /usr/lib/systemd/systemd "$root/sbin/init"
}

# kinds_files: what kindest/node is made of, from kind's Go module
kinds_files() {
  local folder
  folder=$(cd "$work" && go mod download -json "sigs.k8s.io/kind@$KIND" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  cp -r --no-preserve=mode,ownership "$folder"/images/base/files/{etc,kind,usr} "$root/"
  chmod 755 "$root"/kind/bin/* "$root"/usr/local/bin/*
  mkdir -p "$root"/etc/kubernetes/manifests "$root"/kind/manifests
  echo -n "$KUBERNETES" > "$root/kind/version"
}

our_files() {
  install -m 755 "$BIN"/{containerd,containerd-shim-runc-v2,ctr,crictl} "$here"/files/*.sh \
    "$root/usr/local/bin/"
  install -m 755 "$BIN"/{kubelet,kubeadm,kubectl} "$root/usr/bin/"
  install -D -m 755 -t "$root/opt/cni/bin" "$BIN"/{bridge,loopback,host-local,portmap}
  sed "s|@PAUSE@|$(image_of pause)|" "$here/files/containerd.toml" > "$root/etc/containerd/config.toml"
  install -m 644 "$here"/files/*.service "$root/etc/systemd/system/"
  systemctl --root="$root" enable kubelet containerd undo-mount-hacks pod-network component-images no-old-pods
  systemctl --root="$root" mask systemd-binfmt
}

# image_of COMPONENT: the name under which kubeadm asks for it
image_of() {
  grep "/$1:" "$work/names"
}

# pack COMPONENT FOLDER-ON-THE-NODE PROGRAM: the image of a component that is one static program
pack() {
  local content=$work/image/$1
  mkdir -p "$content"/{tmp,etc} "$root/kind/images/$2"
  install -D -m 755 -t "$content/usr/local/bin" "$3"
  python3 "$here/oci.py" "$(image_of "$1")" "$root/kind/images/$2/$1.tar" "$content" "/usr/local/bin/${3##*/}"
  rm -rf "$content"
}

# kube-proxy calls iptables: it comes with the node's, their libraries and their extensions
pack_kube_proxy() {
  local content=$work/image/kube-proxy library
  mkdir -p "$content"/{tmp,etc,run,usr/{bin,sbin,lib},var/lib}
  ln -s usr/bin usr/sbin usr/lib "$content/"
  cp -a "$root"/usr/sbin/xtables-{nft,legacy}-multi "$content/usr/sbin/"
  for library in iptables ip6tables; do
    ln -s xtables-nft-multi "$content/usr/sbin/$library"
    ln -s xtables-nft-multi "$content/usr/sbin/$library-save"
    ln -s xtables-nft-multi "$content/usr/sbin/$library-restore"
  done
  (cd "$root" && find usr/lib -name xtables -exec cp -a --parents {} "$content/" \;)
  # shellcheck disable=SC2016 # for the shell in there
  chroot "$root" sh -c 'ldd /usr/sbin/xtables-*-multi $(find /usr/lib -path "*/xtables/*.so") 2> /dev/null' \
    | grep -o '/[^ :]*' | grep -v '^/usr/.*/xtables' | sort -u | while read -r library; do
      install -D -m 755 "$root$library" "$content/usr${library#/usr}"
    done
  [ -e "$content/lib64" ] || [ ! -d "$content/usr/lib64" ] || ln -s usr/lib64 "$content/lib64"
  chroot "$content" /usr/sbin/iptables --version
  pack kube-proxy every-node "$BIN/kube-proxy"
}

images() {
  local component
  gcc -Os -static -s -o "$work/pause" "$here/pause.c"
  pack pause every-node "$work/pause"
  pack_kube_proxy
  pack coredns every-node "$BIN/coredns"
  for component in etcd kube-apiserver kube-controller-manager kube-scheduler; do
    pack "$component" control-plane "$BIN/$component"
  done
}

# archive LAYER: the image as `docker load` takes it. (`docker import` could not say how systemd is asked to stop.)
archive() {
  cat > "$work/config.json" << CONFIG
{
  "architecture": "$(dpkg --print-architecture)", "os": "linux",
  "config": {
    "Env": ["container=docker", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    "Entrypoint": ["/usr/local/bin/entrypoint", "/sbin/init"],
    "StopSignal": "SIGRTMIN+3"
  },
  "rootfs": {"type": "layers", "diff_ids": ["sha256:$(sha256sum "$work/$1" | cut -d' ' -f1)"]},
  "history": [{"created_by": "tests/cluster/node/build.sh"}]
}
CONFIG
  echo "[{\"Config\": \"config.json\", \"RepoTags\": [\"edgecloud/node:$tag\"], \"Layers\": [\"$1\"]}]" \
    > "$work/manifest.json"
  tar --create --directory "$work" --file "$work/node.tar" manifest.json config.json "$1"
}

set +e # in a condition, the errors in there would not count
(
  set -e
  base
  kinds_files
  "$BIN/kubeadm" config images list --kubernetes-version "$KUBERNETES" > "$work/names"
  our_files
  images
  tar --create --numeric-owner --directory "$root" --file "$work/layer.tar" \
    --exclude="./dev/*" --exclude="./proc/*" --exclude="./sys/*" .
  archive layer.tar
) > "$work/log" 2>&1
status=$?
set -e
if [ "$status" != 0 ]; then
  tail -n 30 "$work/log" >&2
  fail "the node image does not build"
fi
mv "$work/node.tar" "$file"
say "node image: $((SECONDS - started)) s"
done_with

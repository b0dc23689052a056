#!/usr/bin/env bash
# Builds the container images with what is there: docker, or buildah where no docker daemon answers.
#
#   tests/cluster/images.sh                    edgecloud/operator:dev, edgecloud/trainer:dev and edgecloud/edge:dev
#   tests/cluster/images.sh operator           one of them
#
#   IMAGE_BUILDER=docker|buildah   this one; else docker where it answers and has or can pull a base, else buildah
#   TAG=dev                        the images' tag
#   BASE_IMAGE=NAME                instead of python:3.11-slim, or of what debootstrap makes where that can't be pulled
#   EXTRA_PACKAGES="..."           Debian packages to add to the trainer image: "g++ python3-dev" for trainer.compile
#
# Says names, seconds and sizes at the end. buildah's images are called localhost/edgecloud/...
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/cluster/versions.sh
source "$here/versions.sh"

root=$here/../..
tag=${TAG:-dev}
usual_base=python:3.11-slim
# Debian's release and what is added to its minimum. The last figure rises when debian() makes something else of them.
suite=bookworm
base_name=edgecloud/base:$suite-1
base_file=$CACHE/base-$suite-1.tar.gz

# choose: sets builder and base
choose() {
  builder=${IMAGE_BUILDER:-}
  if [ -z "$builder" ]; then
    if command -v docker > /dev/null && docker info > /dev/null 2>&1; then
      builder=docker
    elif command -v buildah > /dev/null; then
      builder=buildah
    else
      have buildah || fail "building images needs a docker daemon that answers, or buildah: your system's packages have both"
      builder=buildah
    fi
  fi
  case $builder in
    docker) local prefix='' ;;
    buildah) local prefix=localhost/ ;;
    *) fail "IMAGE_BUILDER is docker or buildah, not $builder" ;;
  esac
  if [ -n "${BASE_IMAGE:-}" ]; then
    base=$BASE_IMAGE
  elif present "$usual_base" || pulled "$usual_base"; then
    base=$usual_base
  elif [ -z "${IMAGE_BUILDER:-}" ] && [ "$builder" = docker ] && command -v buildah > /dev/null; then
    # Where there is no registry there may be a mirror of the packages whose CA only buildah lets a build know.
    IMAGE_BUILDER=buildah
    choose
  else
    base=$prefix$base_name
    present "$base" || bootstrap
  fi
}

# have PROGRAM: it is there, or can be installed: as root on Debian
have() {
  command -v "$1" > /dev/null && return
  [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null || return 1
  say "installing $1"
  apt_install "$1" >&2
}

present() {
  case $builder in
    docker) docker image inspect "$1" > /dev/null 2>&1 ;;
    buildah) buildah inspect --type image "$1" > /dev/null 2>&1 ;;
  esac
}

pulled() {
  local said
  # A base that has been made already says that there was no registry. Removed, it is looked for again.
  ! present "$base_name" && ! present "localhost/$base_name" || return 1
  said=$(timeout 300 "$builder" pull "$1" 2>&1) && return
  say "$1 can't be pulled: $(tail -n 1 <<< "$said")"
  return 1
}

# bootstrap: $base, Debian's minimum with Python
bootstrap() {
  local container path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  [ -e "$base_file" ] || debian
  case $builder in
    docker) docker import --change "ENV PATH=$path" --change "CMD bash" "$base_file" "$base" > /dev/null ;;
    buildah)
      container=$(buildah from scratch)
      buildah add --quiet "$container" "$base_file" / > /dev/null
      buildah config --cmd bash --env "PATH=$path" "$container"
      buildah commit --quiet --rm "$container" "$base" > /dev/null ;;
  esac
}

# debian: $base_file, made by debootstrap
debian() {
  local folder
  say "debootstrap makes the base image"
  [ "$(id -u)" = 0 ] || fail "debootstrap has to run as root; or name an image that can be pulled in BASE_IMAGE"
  have debootstrap || fail "no debootstrap here; or name an image that can be pulled in BASE_IMAGE"
  folder=$(mktemp -d "$CACHE/.base-XXXXXX")
  # What the image doesn't need: manuals, translations, the package lists.
  if ! debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$folder/root" \
    > "$folder/log" 2>&1; then
    tail -n 20 "$folder/log" >&2
    rm -rf "$folder"
    fail "debootstrap failed"
  fi
  rm -rf "$folder"/root/{var/lib/apt/lists,var/cache/apt,usr/share/doc,usr/share/man,usr/share/locale,var/log}/* \
    "$folder/root/dev" "$folder/root/etc/resolv.conf" "$folder/root/etc/hostname"
  mkdir "$folder/root/dev"
  tar --create --numeric-owner --directory "$folder/root" . | gzip -1 > "$folder/base.tar.gz"
  mv "$folder/base.tar.gz" "$base_file"
  rm -rf "$folder"
}

build() {
  local arguments=(--target "$1" --build-arg "BASE_IMAGE=$base" --build-arg "VERSION=$version" --build-arg "REVISION=$revision")
  [ "$1" != trainer ] || arguments+=(--build-arg "EXTRA_PACKAGES=${EXTRA_PACKAGES:-}")
  case $builder in
    docker) docker build "${arguments[@]}" --tag "edgecloud/$1:$tag" "$root" ;;
    buildah)
      # The host's certificates: a mirror of the packages may have a CA of its own.
      [ ! -e /etc/ssl/certs/ca-certificates.crt ] \
        || arguments+=(--volume /etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:ro)
      buildah bud --layers --network host --pull-never "${arguments[@]}" --tag "localhost/edgecloud/$1:$tag" "$root" ;;
  esac
}

size() {
  case $builder in
    docker) docker image ls --format '{{.Size}}' "edgecloud/$1:$tag" ;;
    buildah) buildah images --noheading --format '{{.Size}}' "localhost/edgecloud/$1:$tag" ;;
  esac
}

mkdir -p "$CACHE"
# chroot: needs neither a runtime nor cgroups, and works in containers.
export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}
exec 9> "$CACHE/.images.lock"
flock 9
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")
revision=$(git -C "$root" describe --always --dirty --abbrev=12 2> /dev/null || echo unknown)
choose
summary=
for target in "${@:-operator trainer edge}"; do
  for name in $target; do
    case $name in
      operator | trainer | edge) ;;
      *) fail "no image named $name; there are operator, trainer and edge" ;;
    esac
    started=$SECONDS
    log=$(mktemp)
    if ! build "$name" > "$log" 2>&1; then
      tail -n 40 "$log" >&2
      fail "$name does not build; all of it is in $log"
    fi
    rm "$log"
    summary+="edgecloud/$name:$tag $((SECONDS - started)) s $(size "$name")"$'\n'
  done
done
echo "built with $builder on $base"
column -t <<< "$summary"

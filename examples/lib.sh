# lib.sh - what the scripts of the quick start and of the tests share; sourced, not run.
#
# All state of the quick start is one directory, CHAT_DIR (build/quickstart):
#
#   port                the broker's port (its WebSocket listener is on the next one)
#   postgres/data       the cluster;  postgres/socket  its only door;  postgres/log
#   keys/demo.pem       public key: tokens are checked with it;  private/demo.pem  tokens are made with it
#   broker/             mosquitto.conf, mosquitto_chat.so, demo.pem (its copy of the private key), spool/, log, pid
#   notifier/           notifier.conf, log;  private/vapid.pem  its key for Web Push

repository=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
build=$repository/build/plugin
state=${CHAT_DIR:-$repository/build/quickstart}
[[ $state == /* ]] || state=$PWD/$state
# A path without symbolic links is shorter, and a Unix socket's may have 107 bytes.
state=$(readlink -m "$state")

build_packages=(gcc libc6-dev cmake ninja-build pkg-config mosquitto-dev libmosquitto-dev libpq-dev libssl-dev libcjson-dev libunistring-dev libpcre2-dev libedit-dev uthash-dev
  libcurl4-openssl-dev libmicrohttpd-dev)

step() {
  printf '\n== %s\n' "$1"
}

die() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  exit 1
}

# The number of a demo user.
user_number() {
  case $1 in
    alice) echo 1 ;;
    bob) echo 2 ;;
    carol) echo 3 ;;
    dave) echo 4 ;;
    [1-9]*) [[ $1 =~ ^[0-9]+$ ]] && echo "$1" || return 1 ;;
    *) return 1 ;;
  esac
}

missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || echo "$package"
  done
}

# Debian starts a broker on port 1883 and a database as soon as their packages are installed. Nobody asked for those.
# Its own switch for that is /usr/sbin/policy-rc.d, which is put there for the moment, where there is none.
install_packages() {
  local policy=/usr/sbin/policy-rc.d
  export DEBIAN_FRONTEND=noninteractive
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  apt-get update && apt-get install -y --no-install-recommends "$@"
}

# Installs those of the named packages that are missing, and shows how it goes.
need_packages() {
  local missing
  command -v dpkg-query >/dev/null || die "this needs Debian 12 (or a system with the same packages)"
  mapfile -t missing < <(missing_packages "$@")
  [ ${#missing[@]} -gt 0 ] || return 0
  step "Installing packages: ${missing[*]}"
  if [ "$(id -u)" = 0 ]; then
    (install_packages "${missing[@]}") || die "apt-get could not install the packages"
  elif command -v sudo >/dev/null; then
    sudo bash -c "$(declare -f install_packages); install_packages \"\$@\"" install "${missing[@]}" ||
      die "apt-get could not install the packages"
  else
    die "packages are missing (${missing[*]}): run this as root, or install sudo"
  fi
}

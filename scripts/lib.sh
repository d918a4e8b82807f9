# Shared by the scripts of this folder; to be sourced by bash after `set -euo pipefail`.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}

# fail MESSAGE...: says why and ends the script.
fail() {
    echo "FAIL $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# install_packages PACKAGE...: from Debian, with a fresh list of packages where the one at hand is not enough.
install_packages() {
    echo "installing $*"
    local log install=(as_root env DEBIAN_FRONTEND=noninteractive
        apt-get install -y -qq --no-install-recommends "$@")
    log=$(mktemp)
    if ! "${install[@]}" >"$log" 2>&1; then
        if ! { as_root apt-get update -qq && "${install[@]}"; } >"$log" 2>&1; then
            cat "$log" >&2
            fail "cannot install $*"
        fi
    fi
    rm -f "$log"
    # Debian starts a daemon that it installs. Nobody asked for one that takes port 11211.
    local daemon
    for daemon in memcached nutcracker etcd; do
        if [[ " $* " == *" $daemon "* ]] && [ -d /run/systemd/system ]; then
            as_root systemctl disable --now "$daemon"
        fi
    done
}

# need COMMAND=PACKAGE...: installs the packages whose command is missing. What cannot be installed
# ends the script: a check that did not run has not passed.
need() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} = 0 ] && return
    install_packages "${missing[@]}"
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || fail "${pair#*=} is installed, but has no ${pair%%=*}"
    done
}

# install_missing PACKAGE...: of packages without a command of their own, those that are not there.
install_missing() {
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
}

# The binary under test: KETCH_SERVER, or a release build of this tree.
server_binary() {
    if [ -z "${KETCH_SERVER:-}" ]; then
        (cd "$root" && cargo build --release --bin ketch) >&2 || fail "the server does not build"
        KETCH_SERVER=$target/release/ketch
    fi
    command -v "$KETCH_SERVER" >/dev/null || fail "KETCH_SERVER=$KETCH_SERVER is no program"
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# answers PORT: whether a server on loopback answers `version`.
answers() {
    local line=
    {
        exec 9<>"/dev/tcp/127.0.0.1/$1" && printf 'version\r\n' >&9 && read -r -t 2 line <&9
        exec 9>&-
        [[ $line == VERSION* ]]
    } 2>/dev/null
}

# start_server BINARY LOG OPTION...: starts a server on a free loopback port, waits until it
# answers, and leaves `port` and `server_pid`. The port may be lost to someone else between the
# choice and the bind, so a server that ends at once is started again.
start_server() {
    local binary=$1 log=$2 user=() attempt i
    shift 2
    [ "$(id -u)" = 0 ] && user=(-u root)
    for attempt in 1 2 3; do
        port=$(free_port)
        "$binary" -l 127.0.0.1 -p "$port" "${user[@]}" "$@" >"$log" 2>&1 &
        server_pid=$!
        for ((i = 0; i < 200; i++)); do
            kill -0 "$server_pid" 2>/dev/null || break
            (answers "$port") && return
            sleep 0.05
        done
        stop_server
    done
    cat "$log" >&2
    fail "$binary does not start"
}

stop_server() {
    [ -n "${server_pid:-}" ] || return 0
    kill "$server_pid" 2>/dev/null || true
    wait "$server_pid" 2>/dev/null || true
    server_pid=
}

#!/bin/bash
# Tries weir.service under a systemd of its own; by hand, as root, with mmdebstrap and systemd-container installed:
#
#   cargo build --release -p weir && cargo xtask plugins rotations
#   packaging/systemd/try.sh target/release/weir PATH/TO/nats-server [DEBIAN-RELEASE]
#
# A host starts, takes rotations, counts flights, and is restarted and stopped. Ends with 0 if all flights were
# counted, compiled code was found again, and the host drained. Prints the host's log.
set -euo pipefail

# Speaks to NATS: sends $1 to subject $2, $3 times, and waits until each is acknowledged with a line that has $4 in it.
send() {
    local line seen=0
    exec 3<>/dev/tcp/127.0.0.1/4222
    printf 'CONNECT {"verbose":false}\r\nSUB _INBOX.try 1\r\n' >&3
    for _ in $(seq "$3"); do printf 'PUB %s _INBOX.try %s\r\n%s\r\n' "$2" "${#1}" "$1" >&3; done
    while [ "$seen" -lt "$3" ]; do
        read -r -t 20 -u 3 line
        case $line in
        *'"error"'*) echo "$line" >&2 && return 1 ;;
        *"$4"*) seen=$((seen + 1)) ;;
        esac
    done
    exec 3>&-
}

wait_for() { timeout 60 bash -c "until $1; do sleep 0.2; done"; }

# In the machine, as try.service.
inside() {
    local ready='curl --fail --silent --output /dev/null http://127.0.0.1:9464/readyz'
    export WEIR_LEDGER=SHOP
    systemd-analyze verify weir.service
    systemctl start nats weir
    wait_for "$ready"
    send '{"name":"FLIGHTS","subjects":["flights.>"]}' '$JS.API.STREAM.CREATE.FLIGHTS' 1 '"name":"FLIGHTS"'
    weir deploy /opt/rotations
    send '{"tailnum":"N14228"}' flights.JFK.UA 100 '"stream":"FLIGHTS"'
    systemctl restart weir
    wait_for "$ready"
    send '{"tailnum":"N14228"}' flights.JFK.UA 100 '"stream":"FLIGHTS"'
    wait_for 'weir state get rotations N14228 | grep --quiet 200'
    systemctl stop weir
    systemctl show --property Result weir | grep Result=success
    journalctl --sync
    [ "$(journalctl --unit weir | grep --count ' drained$')" = 2 ]
    ! journalctl --unit weir | grep 'compiled code not'
}

if [ "$1" = inside ]; then
    # The machine's disk is all that leaves it.
    trap 'echo $? >/result; journalctl --unit weir --unit try --no-pager >/log; systemctl poweroff' EXIT
    inside
    exit
fi

here=$(cd "$(dirname "$0")" && pwd)
root=$(mktemp --directory)
trap 'rm --recursive --one-file-system "$root"' EXIT
mmdebstrap --quiet --variant=minbase --include=systemd-sysv,dbus,curl "${3:-trixie}" "$root" http://deb.debian.org/debian
install "$1" "$root/usr/local/bin/weir"
install "$2" "$root/usr/local/bin/nats-server"
install "$0" "$root/usr/local/bin/try"
install --mode=644 "$here/weir.service" "$root/etc/systemd/system/"
install -D --mode=644 --target-directory="$root/opt/rotations" "$here"/../../plugins/rotations/{handler.toml,rotations.wasm}
mkdir "$root/etc/weir"
printf '[ledger]\nname = "SHOP"\nsubjects = ["rotations.>"]\n' >"$root/etc/weir/weir.toml"
printf '[Service]\nExecStart=/usr/local/bin/nats-server --jetstream --store_dir /var/lib/nats\n' \
    >"$root/etc/systemd/system/nats.service"
printf '[Service]\nType=oneshot\nExecStart=/usr/local/bin/try inside\n[Install]\nWantedBy=multi-user.target\n' \
    >"$root/etc/systemd/system/try.service"
systemctl --root "$root" --quiet enable try.service
systemd-nspawn --directory "$root" --boot --private-network --register=no --keep-unit --quiet >/dev/null </dev/null
cat "$root/log"
exit "$(cat "$root/result")"

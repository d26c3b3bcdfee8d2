"""`down` as a shell script, for when the program has been removed.

Rules: it runs the commands that `down` prints, in the same order, each only if there is still
something to do. It needs ip, ss, nft and, if eBPF programs are attached, bpftool; nothing is
changed without them, nor while a login depends on what is removed. Names of others, such as
interfaces', are quoted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ifdefault.model.kernel import (
    OWN_TABLES,
    PROTOCOL,
    LoadNft,
    Operation,
    PutHook,
    SetGroup,
    SetSysctl,
)
from ifdefault.model.mptcp import FIRST_ID, DeleteEndpoint, SetMptcpLimit
from ifdefault.model.text import to_bytes
from ifdefault.plan.describe import describe
from ifdefault.plan.prepare import Prepared

NAME = "undo.sh"  # in the state directory


@dataclass(frozen=True, slots=True)
class Host:
    """What the script is for. `path`: where it will be; `boot`: the boot and the network namespace;
    `programs`: the name of the eBPF programs there."""

    path: str
    version: str
    boot: str
    programs: str


def render(prepared: Prepared, host: Host) -> str:
    tables = {r.table for r in prepared.facts.routes if r.protocol == PROTOCOL}
    hooked = any(isinstance(operation, PutHook) for operation in prepared.operations)
    values = {
        "@attached": _ATTACHED if hooked else "",
        "@version": host.version,
        "@path": _quote(host.path),
        "@boot": _quote(host.boot),
        "@programs": _quote(host.programs),
        "@protocol": str(PROTOCOL),
        "@nft": " ".join(OWN_TABLES),
        "@tables": " ".join(map(str, sorted(tables))),
        "@first_id": str(FIRST_ID),
        "@steps": "\n".join(_steps(prepared)),
    }
    # at once: what a value contains isn't replaced
    return re.sub("|".join(values), lambda found: values[found[0]], _SCRIPT)


def _steps(prepared: Prepared) -> Iterator[str]:
    for operation in prepared.operations:
        yield " ".join(_quote(word) for word in _words(operation))
    for path in prepared.state.runs:  # of `exec`; kept while processes are in it
        yield f'step rmdir "$cgroups"{_quote(path)}'


def _words(operation: Operation) -> list[str]:
    match operation:
        case SetSysctl(name, value, was) if was == value:
            return ["keep_sysctl", name, value]
        case SetSysctl(name, value, was):
            return ["restore_sysctl", name, was, value]
        case SetGroup(dev, group, was):
            return ["restore_group", dev, str(was), str(group)]
        case LoadNft(table, ""):
            return ["step", "nft", "delete", "table", "inet", table]
        case PutHook():
            return ["detach_programs"]
        case SetMptcpLimit(name, value, was):
            return ["restore_limit", name, str(was), str(value)]
        case DeleteEndpoint(endpoint):
            return ["step", "ip", "mptcp", "endpoint", "delete", "id", str(endpoint.id)]
        case _:
            return ["step", *describe(operation).split(" ")]


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./%")


def _quote(word: str) -> str:
    if not word.isprintable():  # it would be shown as an escape, and isn't that of any interface
        octal = "".join(f"\\0{byte:03o}" for byte in to_bytes(word))
        return f"\"$(printf %b '{octal}')\""
    return word if word and _PLAIN.issuperset(word) else "'" + word.replace("'", "'\\''") + "'"


_ATTACHED = """\
need bpftool bpftool
bpftool cgroup show "$cgroups" >/dev/null ||
    die "the eBPF programs can't be listed; mount cgroup2 on /sys/fs/cgroup, then: sh @path"
"""
_SCRIPT = """\
#!/bin/sh
# Removes from the kernel what ifdefault @version installed there, as `ifdefault down` would.
# `apt purge ifdefault` runs it. It needs root; what has been removed already is skipped.
#
# usage: sh undo.sh [--check | --anyway]
#   --check     change nothing; fail if it would cut a login that only ifdefault's rules answer
#   --anyway    even if it does
set -uf # no name is a pattern of files
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
trap '' HUP # if it cuts the login that it was started from, it goes on
script=@path
mode=${1:-}

die() {
    echo "ifdefault: $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || die "run this as root: sh $script"
# Nothing of it outlives the kernel, or a container.
here="$(cat /proc/sys/kernel/random/boot_id) $(readlink /proc/$$/ns/net)"
[ "$here" = @boot ] || exit 0
# need COMMAND PACKAGE
need() {
    command -v "$1" >/dev/null ||
        die "nothing was removed from the kernel: $1 is not installed; run: apt install $2;" \
            "sh $script"
}
need ip iproute2
need ss iproute2

# --- logins ---------------------------------------------------------------------------------

# main_hop PEER: the gateway, if any, and the interface by which table main alone would reach it
main_hop() {
    case $1 in *:*) family=-6 ;; *) family=-4 ;; esac
    ip "$family" route show table main match "$1" | awk '
        $1 == "nexthop" { next }
        $1 ~ /^(unreachable|blackhole|prohibit|throw)$/ { sub(/^[a-z]+ /, "") }
        {
            bits = $1 == "default" ? 0 : $1 ~ /\\// ? substr($1, index($1, "/") + 1) : 128
            device = ""; gateway = ""; metric = 0
            for (i = 1; i < NF; i++) {
                if ($i == "via") gateway = $(i + 1) == "inet6" ? $(i + 2) : $(i + 1)
                if ($i == "dev") device = $(i + 1)
                if ($i == "metric") metric = $(i + 1)
            }
            if (!found || bits > best || (bits == best && metric < least)) {
                found = 1; best = bits; least = metric; result = gateway " " device
            }
        }
        END { print result }'
}

# Logins whose replies are routed by a table of ours to where table main would not send them.
guard() {
    ss -Htnpe state established | grep '"sshd' | while read -r _ _ local peer rest; do
        address=${local%:*} client=${peer%:*}
        address=${address#[} address=${address%]} address=${address#::ffff:}
        client=${client#[} client=${client%]} client=${client#::ffff:}
        case $rest in *fwmark:*) mark=${rest#*fwmark:} mark="mark ${mark%% *}" ;; *) mark= ;; esac
        # shellcheck disable=SC2086 # two words, or none
        route=" $(ip -N route get "$client" from "$address" $mark 2>/dev/null | head -n 1) "
        for table in @tables; do
            case $route in *" table $table "*) ;; *) continue ;; esac
            device=${route#* dev } device=${device%% *}
            case $route in *" via inet6 "*) via=${route#* via inet6 } via=${via%% *} ;;
                *" via "*) via=${route#* via } via=${via%% *} ;; *) via= ;; esac
            [ "$(main_hop "$client")" != "$via $device" ] || continue
            process=${rest#*pid=} process=${process%%[!0-9]*}
            echo "the login from $client (sshd, process $process) came in by $device, and only" \\
                "ifdefault's rules answer it there; log in by another uplink, or cut it with: $cut"
        done
    done
}

case $mode in --check) cut='ifdefault down' ;; *) cut="sh $script --anyway" ;; esac
if [ "$mode" != --anyway ]; then
    depends=$(guard | head -n 1)
    [ -z "$depends" ] || die "nothing was removed from the kernel: $depends"
fi
[ "$mode" != --check ] || exit 0

# --- steps ----------------------------------------------------------------------------------

need nft nftables
# Where the control groups are, which the eBPF programs are attached to.
cgroups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
programs() {
    bpftool cgroup show "$cgroups" 2>/dev/null |
        awk -v name=@programs '$NF == name { print $2, $1 }'
}
@attached
restored=
step() {
    if "$@" 2>/dev/null; then printf '%s\\n' "$*"; fi
}

# restore_sysctl NAME OURS ORIGINAL, restore_group INTERFACE OURS ORIGINAL, restore_limit likewise:
# unless someone else has changed it since
restore_sysctl() {
    restored=
    [ "$(tr '\\t' ' ' <"/proc/sys/$1")" = "$2" ] || return 0
    if printf '%s\\n' "$3" >"/proc/sys/$1"; then
        echo "sysctl -w $1=$3"
        restored=1
    fi
} 2>/dev/null

# keep_sysctl NAME VALUE: the kernel has set it along with the one before
keep_sysctl() {
    [ -z "$restored" ] || printf '%s\\n' "$2" >"/proc/sys/$1"
} 2>/dev/null

restore_group() {
    case "$(ip -N -o link show dev "$1") " in *" group $2 "*) ;; *) return 0 ;; esac
    step ip link set dev "$1" group "$3"
} 2>/dev/null

restore_limit() {
    case "$(ip mptcp limits show) " in *"$1 $2 "*) step ip mptcp limits set "$1" "$3" ;; esac
} 2>/dev/null

# The ids of our MPTCP endpoints; the kernel made those that are implicit (flag 0x10).
endpoints() {
    ip mptcp endpoint show 2>/dev/null | awk '!/ implicit| rawflags 10/ {
        for (i = 1; i < NF; i++) if ($i == "id" && $(i + 1) >= @first_id) print $(i + 1)
    }'
}

detach_programs() {
    programs | while read -r kind number; do
        step bpftool cgroup detach "$cgroups" "$kind" id "$number"
    done
}

@steps

# What has come since this was written, such as by another version.
for family in -4 -6; do
    ip "$family" -N rule show | grep -w 'proto @protocol' | while IFS=: read -r priority rule; do
        # shellcheck disable=SC2086 # the words of a rule
        step ip "$family" rule del pref "$priority" $rule
    done
    ip "$family" route flush table all proto @protocol 2>/dev/null
done
for id in $(endpoints); do step ip mptcp endpoint delete id "$id"; done
for table in @nft; do
    nft list table inet "$table" >/dev/null 2>&1 && step nft delete table inet "$table"
done

# --- what is left ---------------------------------------------------------------------------

left=$(
    for family in -4 -6; do
        ip "$family" -N rule show
        ip "$family" -N route show table all
    done | grep -w 'proto @protocol'
    for table in @nft; do nft list table inet "$table" 2>/dev/null | head -n 1; done
    programs
    endpoints
)
[ -z "$left" ] || die "this could not be removed; a restart of the host removes it: $left"
"""

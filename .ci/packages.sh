#!/bin/sh
# Install what harness/debian-packages.txt lists and this host lacks. `make setup` calls it.
# Nothing is installed, and no privilege asked for, when nothing is missing.
set -eu

table=$(dirname "$0")/../harness/debian-packages.txt

# The table is written for an amd64 host. On arm64 compiler and binutils are those for x86_64.
case $(uname -m) in
aarch64) swap='s/^gcc-aarch64-linux-gnu /gcc-x86-64-linux-gnu /
s/ aarch64-linux-gnu-gcc / x86_64-linux-gnu-gcc /
s/^binutils-aarch64-linux-gnu /binutils-x86-64-linux-gnu /
s/ aarch64-linux-gnu-objdump / x86_64-linux-gnu-objdump /
s/^libc6-dev-arm64-cross /libc6-dev-amd64-cross /' ;;
*) swap='' ;;
esac
wanted=$(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' -e "$swap" "$table")

# Package names that are installed, and the names those packages stand in for (libarchive13t64 provides libarchive13).
installed=
if command -v dpkg-query >/dev/null; then
    # shellcheck disable=SC2016 # the fields are dpkg-query's
    installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}, ${Provides}\n' |
        sed -n 's/^installed //p' | tr ',' '\n' | sed -e 's/(.*//' -e 's/ //g')
fi

has_commands() { # command,command…
    for name in $(printf %s "$1" | tr ',' ' '); do
        command -v "$name" >/dev/null || return 1
    done
}

missing_packages=
missing_commands=
while read -r package commands; do
    if printf '%s\n' "$installed" | grep -qxF "$package"; then
        continue
    fi
    # Built by hand or by another package manager is as good.
    if [ "$commands" != - ] && has_commands "$commands"; then
        continue
    fi
    missing_packages="$missing_packages $package"
    [ "$commands" = - ] || missing_commands="$missing_commands $commands"
done <<END
$wanted
END

if [ -z "$missing_packages" ]; then
    exit 0
fi

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "setup: not a Debian system, so nothing is installed for you." >&2
    if [ -n "$missing_commands" ]; then
        echo "setup: missing commands:$missing_commands" >&2
        echo "setup: install them (the Debian packages are named in harness/debian-packages.txt) and try again" >&2
        exit 1
    fi
    echo "setup: going on; if something fails later, look for the equivalents of:$missing_packages" >&2
    exit 0
fi

as_root=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "setup: missing Debian packages, and neither root nor sudo to install them; as root, run" >&2
        echo "    apt-get install --no-install-recommends$missing_packages" >&2
        exit 1
    fi
    as_root=sudo
fi

# Only the file /usr/sbin/sshd is wanted of openssh-server (tests start one of their own on the loopback
# interface). Its package would start a daemon that listens to the world, now and at every boot: it must not.
policy=/usr/sbin/policy-rc.d
undo_policy() { :; }
case "$missing_packages " in
*" openssh-server "*)
    if [ -d /run/systemd/system ] && [ ! -e $policy ]; then
        undo_policy() {
            $as_root rm -f $policy
            $as_root systemctl --quiet disable ssh.service || true
        }
        trap undo_policy EXIT
        trap 'exit 130' INT TERM
        printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
        $as_root chmod 755 $policy
    fi
    ;;
esac

echo "setup: installing$missing_packages (a minute or more)" >&2
apt_get() { # What goes wrong is on standard error; the rest is hundreds of lines.
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 \
        -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@" >/dev/null
}
apt_get update
# shellcheck disable=SC2086 # a list of names
apt_get install --no-install-recommends $missing_packages

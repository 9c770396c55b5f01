#!/usr/bin/env bash
# Install what the test suite needs on Debian: database servers, Chromium with fonts, make.
#
# MariaDB comes from the system's own packages. MySQL is not in Debian's stable releases, so a
# minimal Debian sid with mysql-server-core is unpacked into a folder of its own, and
# running.py starts mysqld inside it. A second run changes nothing.
#
#   GWF_TEST_MARIADB_URL   a MariaDB server to use instead: mariadb-server is not installed
#   GWF_TEST_MYSQL_URL     a MySQL server to use instead: no folder is made
#   GWF_MYSQL_ROOT         the folder for MySQL (default: gwf/mysql-sid in the user's cache)
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
export PATH="$PATH:/usr/sbin:/sbin"

cache=${XDG_CACHE_HOME:-~/.cache}
mysql_root=$(realpath -m "${GWF_MYSQL_ROOT:-$cache/gwf/mysql-sid}")
policy=/usr/sbin/policy-rc.d
apt_install=(apt-get -qq -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0
    install -y --no-install-recommends)
own_policy=""
unfinished=""

fail() {
    printf 'tests/servers/install.sh: %s\n' "$1" >&2
    if [[ $# -gt 1 ]]; then printf '  %s\n' "${@:2}" >&2; fi
    exit 1
}

is_installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# debootstrap keeps a folder of its name in the tree until it has finished.
has_mysql() {
    [[ -x $1/usr/sbin/mysqld && ! -d $1/debootstrap ]] && grep -q '^mysql:' "$1/etc/passwd"
}

# An interrupted debootstrap leaves /proc and /sys mounted in its tree.
remove_tree() {
    local mounted
    awk -v tree="$1/" 'index($5, tree) == 1 {print $5}' /proc/self/mountinfo | sort -r |
        while read -r mounted; do umount --lazy "$mounted"; done
    rm -rf --one-file-system -- "$1"
}

clean_up() {
    [[ -z $own_policy ]] || rm -f "$policy"
    [[ -z $unfinished ]] || remove_tree "$unfinished"
}

install_packages() {
    # Exit code 101 forbids the packages to start a service (Debian Policy, invoke-rc.d).
    if [[ ! -e $policy ]]; then
        own_policy=yes
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    apt-get -qq update
    "${apt_install[@]}" "$@"
    if [[ " $* " == *" mariadb-server "* ]]; then
        if command -v systemctl >/dev/null; then systemctl --quiet disable mariadb.service; fi
        update-rc.d mariadb disable >/dev/null
    fi
}

# The tree is built beside its place and renamed, so that it is either whole or absent.
install_mysql() {
    local build=$mysql_root.building
    mkdir -p "$(dirname "$mysql_root")"
    exec 9>"$mysql_root.lock"
    flock 9
    if has_mysql "$mysql_root"; then return; fi
    if [[ -n $(ls -A "$mysql_root" 2>/dev/null) ]]; then
        [[ $mysql_root != / && (-d $mysql_root/debootstrap || -d $mysql_root/var/lib/dpkg) ]] ||
            fail "$mysql_root holds other files; set GWF_MYSQL_ROOT to a new folder."
    fi

    unfinished=$build
    remove_tree "$build"
    if [[ -z ${http_proxy:-} ]]; then
        eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
        if [[ -n ${http_proxy:-} ]]; then export http_proxy; fi
    fi
    debootstrap --variant=minbase sid "$build"

    # apt in the tree reaches the registry the way the host does: proxy, dates, certificates.
    local settings=$build/etc/apt/apt.conf.d/99host
    apt-config dump | grep -E '^Acquire::(Check|Retries|ForceIPv|https?::)' |
        grep -v -i -E 'auto-?detect' >"$settings" || true
    if [[ -e /etc/ssl/certs/ca-certificates.crt ]]; then
        mkdir -p "$build/etc/ssl/certs"
        cp -L /etc/ssl/certs/ca-certificates.crt "$build/etc/ssl/certs/"
    fi
    cp -L /etc/resolv.conf "$build/etc/resolv.conf"
    chroot "$build" apt-get -qq update
    chroot "$build" "${apt_install[@]}" mysql-server-core
    chroot "$build" apt-get clean
    rm -rf "$settings" "$build"/var/lib/apt/lists/*
    grep -q '^mysql:' "$build/etc/passwd" ||
        chroot "$build" useradd --system --user-group --no-create-home \
            --home-dir /nonexistent --shell /usr/sbin/nologin mysql
    chroot "$build" mysqld --version

    remove_tree "$mysql_root"
    mv -T "$build" "$mysql_root"
    unfinished=""
}

command -v dpkg-query >/dev/null ||
    fail "this is not Debian; install Chromium and make yourself, and set" \
        "GWF_TEST_MARIADB_URL and GWF_TEST_MYSQL_URL to servers for the tests."

wanted=(chromium fonts-noto-cjk make)
needs_mysql=""
[[ -n ${GWF_TEST_MARIADB_URL:-} ]] || wanted+=(mariadb-server)
if [[ -z ${GWF_TEST_MYSQL_URL:-} ]] && ! has_mysql "$mysql_root"; then
    needs_mysql=yes
    wanted+=(debootstrap)
fi
missing=()
for package in "${wanted[@]}"; do
    is_installed "$package" || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 && -z $needs_mysql ]]; then exit 0; fi

if [[ $EUID -ne 0 ]]; then
    fail "only root can install what is missing here." \
        "missing packages: ${missing[*]:-none}" \
        "missing MySQL in $mysql_root: ${needs_mysql:-no}" \
        "Run this script as root, or install the packages with apt and set" \
        "GWF_TEST_MARIADB_URL and GWF_TEST_MYSQL_URL to servers for the tests," \
        "for example mysql+pymysql://user:password@localhost:3306"
fi

trap clean_up EXIT
trap 'exit 130' INT TERM HUP
if [[ ${#missing[@]} -gt 0 ]]; then install_packages "${missing[@]}"; fi
if [[ -n $needs_mysql ]]; then install_mysql; fi

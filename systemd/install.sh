#!/bin/sh
# `sudo make install`: fasthook as a service of this machine. Done again, it is an upgrade, in which no
# request fails. Nothing of yours is overwritten: configuration, secrets, drop-ins.
#
#   PREFIX          where it goes; nobody but root writes there, everybody may read (/opt/fasthook)
#   SYSTEM_PYTHON   3.11 or newer, which all users may run (/usr/bin/python3)
#   PROVIDER        who sends, for the first configuration (github)
#   HOST            the host name that senders use: nginx gets a block for it, once it has a certificate
#   COMPILE         1: with the way of a request compiled
#   WHEELS          a folder to install from, instead of a package index
set -eu
umask 022
prefix=${PREFIX:-/opt/fasthook}
python=${SYSTEM_PYTHON:-/usr/bin/python3}
here=$(cd "$(dirname "$0")/.." && pwd)

fail() { echo "make install: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "needs root, as in \`sudo make install\`; for work on the code: \`make venv\`"
[ -d /run/systemd/system ] || fail "systemd does not run here; for work on the code: \`make venv\`"
"$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' ||
  fail "$python: expected Python 3.11 or newer with venv (apt-get install python3-venv)"

"$python" -m venv "$prefix"
set --
[ -z "${WHEELS:-}" ] || set -- --no-index --find-links "$WHEELS"
# The name alone has pip take it from the wheels; the folder is built.
what="$here[asymmetric]"
[ -z "${WHEELS:-}" ] || what="fasthook[asymmetric]"
PIP_CONSTRAINT="$here/constraints.txt" HATCH_BUILD_HOOKS_ENABLE=${COMPILE:-0} "$prefix/bin/python" -m pip \
  install -q --disable-pip-version-check --upgrade "$@" -c "$here/constraints.txt" "$what"
ln -sfn "$prefix/bin/fasthook" /usr/local/bin/fasthook

is_running=0
systemctl is-active -q fasthook.service && is_running=1
"$prefix/bin/fasthook" init --systemd --provider "${PROVIDER:-github}" /
journalctl --update-catalog
systemctl daemon-reload
systemctl enable -q --now fasthook.socket fasthook-admin.socket fasthook.service
[ $is_running = 0 ] || systemctl restart fasthook.service

# A block that nginx can't read, such as one without its certificate, would keep it from its next start.
block="/etc/nginx/conf.d/${HOST:-}.conf"
how="fasthook init --nginx ${HOST:-HOST} -c /etc/fasthook/fasthook.toml /etc/nginx/conf.d"
if [ -n "${HOST:-}" ] && [ -d /etc/nginx/conf.d ] && [ ! -e "$block" ]; then
  "$prefix/bin/fasthook" init --nginx "$HOST" -c /etc/fasthook/fasthook.toml /etc/nginx/conf.d >/dev/null
  if said=$(nginx -t 2>&1); then
    cp "$block" "$prefix/nginx-$HOST.conf"
    systemctl reload-or-restart nginx.service
  else
    rm "$block"
    echo "$said" >&2
    echo "nginx has no block for $HOST yet: get a certificate, then \`make install HOST=$HOST\` again" >&2
  fi
elif [ -z "${HOST:-}" ]; then
  echo "nginx's part: $how"
fi
echo "fasthook runs. \`make uninstall\` undoes it."

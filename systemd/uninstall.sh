#!/bin/sh
# `sudo make uninstall`: undo `make install`. What was received, the configuration and the secrets stay,
# unless PURGE=1.
set -eu
prefix=${PREFIX:-/opt/fasthook}
units=/usr/local/lib/systemd/system

[ "$(id -u)" = 0 ] || { echo "make uninstall: needs root, as in \`sudo make uninstall\`" >&2; exit 1; }

systemctl disable -q --now fasthook.socket fasthook-admin.socket fasthook.service 2>/dev/null || true
rm -f "$units/fasthook.service" "$units/fasthook.socket" "$units/fasthook-admin.socket"
rm -rf "$units/fasthook.service.d"
rm -f "${units%/*}/catalog/fasthook.catalog"
journalctl --update-catalog || true
if [ "$(readlink /usr/local/bin/fasthook || true)" = "$prefix/bin/fasthook" ]; then
  rm -f /usr/local/bin/fasthook
fi
# nginx's part, if nobody has changed it since.
for copy in "$prefix"/nginx-*.conf; do
  [ -e "$copy" ] || continue
  block="/etc/nginx/conf.d/${copy##*/nginx-}"
  if cmp -s "$copy" "$block" || [ "${PURGE:-0}" = 1 ]; then
    rm -f "$block"
    systemctl try-reload-or-restart nginx.service || true
  elif [ -e "$block" ]; then
    echo "kept: $block, which was changed; nobody answers behind it now"
  fi
done
# It is ours only if it is what install makes: an environment with fasthook in it.
if [ -x "$prefix/bin/fasthook" ] && [ -f "$prefix/pyvenv.cfg" ]; then rm -rf "$prefix"; fi
rm -f /run/fasthook/fasthook.sock
for folder in "$units" "${units%/*}/catalog" "${units%/*}" /run/fasthook /etc/systemd/system/sockets.target.wants; do
  rmdir "$folder" 2>/dev/null || true
done
if [ "${PURGE:-0}" = 1 ]; then
  rm -rf /etc/fasthook /etc/systemd/system/fasthook.service.d /var/lib/private/fasthook
  rm -f /var/lib/fasthook
else
  for kept in /etc/fasthook /etc/systemd/system/fasthook.service.d /var/lib/private/fasthook; do
    [ ! -e "$kept" ] || echo "kept: $kept (PURGE=1 removes it)"
  done
fi
systemctl daemon-reload
systemctl reset-failed fasthook.service fasthook.socket fasthook-admin.socket 2>/dev/null || true

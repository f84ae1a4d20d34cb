#!/bin/sh
# Install the Debian packages named as arguments, where that can be done without a question; elsewhere say which they are.
set -eu
missing=""
for package in "$@"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing; } \
    >/dev/null 2>&1 || { echo "could not install:$missing" >&2; exit 1; }
else
  echo "tests that need them will skip; to install, as root: apt-get install$missing" >&2
fi

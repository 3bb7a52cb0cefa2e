#!/bin/sh
# Triton's Python backend links against libpython3.11; Debian and Ubuntu ship it as a package of its own.
set -eu
ldconfig -p | grep -q 'libpython3\.11\.so\.1\.0' && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libpython3.11
else
    echo "libpython3.11.so.1.0 is missing and Triton's Python backend needs it: sudo apt-get install libpython3.11" >&2
    exit 1
fi

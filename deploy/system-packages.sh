#!/bin/sh
# Triton's Python backend links against libpython3.11; Debian and Ubuntu ship it as a package of its own.
set -eu
PATH="$PATH:/sbin:/usr/sbin" # where ldconfig is, which Debian hides from ordinary users
ldconfig -p | grep -q 'libpython3\.11\.so\.1\.0' && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libpython3.11
else
    # Not an error yet: a Python that was built with --enable-shared brings its own, and `id3pm serve` looks for both.
    echo "libpython3.11.so.1.0 is not installed system-wide. Should the server miss it: sudo apt-get install libpython3.11" >&2
fi

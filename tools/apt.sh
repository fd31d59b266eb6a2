#!/bin/sh
# Installs what building and testing with Objective-C on Linux takes: clang and GNUstep for the binding and its
# stand-in, lld for the check build for macOS, a compiler and an emulator for arm64. Says nothing when all is there.
set -e
[ "$(uname)" = Darwin ] && exit 0

packages="gcc libc6-dev clang-19 lld-19 libclang-rt-19-dev
          gobjc libgnustep-base-dev gnustep-base-runtime libblocksruntime-dev
          gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"

if ! command -v dpkg-query > /dev/null; then
    echo "anex's tests need, in Debian's names:" $packages "- this is not Debian; install them, then touch .venv/apt" >&2
    exit 1
fi
missing=$(for package in $packages; do
    dpkg-query --show --showformat '${db:Status-Status}' "$package" 2> /dev/null | grep -qx installed || echo "$package"
done)
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo > /dev/null; then
    as_root=sudo
else
    echo "anex's tests need packages that only root can install: apt-get install" $missing >&2
    exit 1
fi
echo "installing with apt-get:" $missing
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing > /dev/null

# Roots of Debian packages alone, and commands inside them: sourced by the scripts beside it.
#
# A root is unpacked and kept; no script of a package runs. It takes the rights of root, and the
# packages mmdebstrap and debian-archive-keyring. A mirror may be an old state of testing: signed
# it must be, recent it need not.

SUITE=${SUITE:-forky}
MIRROR=${MIRROR:-http://deb.debian.org/debian}
ROOTS=${ROOTS:-${XDG_CACHE_HOME:-$HOME/.cache}/fastsoftmax-emulated}

# What goes into the root `x86_64`, in which compilers build the package.
COMPILERS=(python3 libpython3-dev python3-numpy python3-pytest python3-hypothesis python3-mpmath
    python3-ml-dtypes cython3 python3-setuptools binutils gcc-12 gcc-13 gcc-14 gcc-16 clang-22)

# root NAME ARCHITECTURES PACKAGE...: make it if it is not there yet; $ROOT is where it is.
root() {
    local name=$1 architectures=$2
    shift 2
    ROOT=$ROOTS/$SUITE/$name
    if [ "$(cat "$ROOT/.packages" 2>/dev/null)" = "$*" ]; then return; fi
    echo "unpacking $SUITE's packages into $ROOT" >&2
    rm -rf "$ROOT"
    mkdir -p "$ROOTS/$SUITE"
    mmdebstrap --quiet --variant=extract --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        --aptopt='APT::Install-Recommends "false"' \
        --aptopt='Acquire::Check-Valid-Until "false"' --architectures="$architectures" \
        --include="base-files bash dash coreutils findutils grep sed libc-bin $*" \
        "$SUITE" "$ROOT" "$MIRROR" >&2
    rm -rf "$ROOT"/usr/share/{doc,man,locale,info} "$ROOT"/var/{cache,lib}/apt
    mkdir -p "$ROOT"/{host,proc,dev,tmp,usr/local/bin}
    echo "$*" >"$ROOT/.packages"
}

# The root `aarch64`: cross compilers, and a Python that alone is emulated: what it starts is a program of
# this machine, or itself again.
aarch64_root() {
    root aarch64 amd64,arm64 libc6-dev:arm64 python3:arm64 libpython3-dev:arm64 python3-numpy:arm64 \
        python3-pytest python3-hypothesis python3-mpmath python3-ml-dtypes:arm64 cython3:arm64 \
        python3-setuptools qemu-user gcc-aarch64-linux-gnu clang-22
    printf '#!/bin/sh\nexec qemu-aarch64 -cpu neoverse-n1 -0 "$0" /usr/bin/python3 "$@"\n' \
        >"$ROOT/usr/local/bin/python3"
    chmod +x "$ROOT/usr/local/bin/python3"
}

# Where update-alternatives would have linked from: the libraries that NumPy loads.
LIBRARIES=$(printf '%s:' /usr/lib/{x86_64,aarch64}-linux-gnu/{blas,lapack})

# inside DIR COMMAND...: run a command in $ROOT, with DIR as its /host, working folder and PYTHONPATH.
inside() {
    unshare -m --propagation private bash -euc '
        mount --bind "$2" "$1/host"
        mount -t proc proc "$1/proc"
        mount --rbind /dev "$1/dev"
        mount -t tmpfs tmp "$1/tmp"
        root=$1
        libraries=$3
        shift 3
        exec env -i PATH=/usr/local/bin:/usr/bin:/usr/sbin HOME=/tmp LANG=C.UTF-8 PYTHONPATH=/host \
            LD_LIBRARY_PATH="$libraries" \
            chroot "$root" sh -c '\''cd /host && exec "$@"'\'' sh "$@"' inside "$ROOT" "$1" "$LIBRARIES" "${@:2}"
}

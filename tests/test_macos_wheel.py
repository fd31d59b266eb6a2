"""The wheel for macOS on Apple silicon, cross-built here: what dyld would find in it. That it runs takes a Mac."""

import re
import sys
import zipfile

import lief
import pytest
from fake_ane.build import alone

from tools import macos_wheel

FOUNDATION = "/System/Library/Frameworks/Foundation.framework/Versions/C/Foundation"
LIBRARIES = [FOUNDATION, "/usr/lib/libobjc.A.dylib", "/usr/lib/libSystem.B.dylib"]

# What no library is named for, so that it is looked up in all that is loaded: Python, and Foundation's classes.
FLAT = re.compile(
    r"_{1,2}Py[A-Z_]\w*|_OBJC_CLASS_\$_NS[A-Z]\w*|_OBJC_EHTYPE_\$_NSException|___CFConstantStringClassReference"
)
# All else, by where it comes from. The linker knew what libSystem exports; this says what we mean to use of it.
IMPORTS = {
    FOUNDATION: "_NSClassFromString _NSTemporaryDirectory",
    "/usr/lib/libobjc.A.dylib": """
        ___objc_personality_v0 _class_getClassMethod _class_getInstanceMethod _method_getTypeEncoding
        _objc_alloc _objc_alloc_init _objc_autorelease _objc_autoreleasePoolPop _objc_autoreleasePoolPush
        _objc_begin_catch _objc_end_catch _objc_enumerationMutation _objc_getClass _objc_msgSend _objc_opt_class
        _objc_opt_isKindOfClass _objc_opt_respondsToSelector _objc_release _objc_retain _objc_terminate
        _sel_registerName
    """,
    "/usr/lib/libSystem.B.dylib": """
        __Block_copy __Block_release __NSConcreteGlobalBlock __NSConcreteStackBlock __Unwind_Resume
        _dlclose _dlerror _dlopen _dlsym
        _aligned_alloc _calloc _free _malloc _realloc _qsort _mmap _munmap _madvise
        _bzero _memchr _memcmp _memcpy _memmove _memset _memset_pattern16 ___memcpy_chk ___memmove_chk ___memset_chk
        _strchr _strcmp _strcspn _strdup _strerror _strlen _strncmp _strrchr _strstr ___strcpy_chk ___strncpy_chk
        _snprintf _vsnprintf ___snprintf_chk ___stack_chk_fail ___stack_chk_guard ___error
        _cos _cosf _exp _fmodf _ldexpf _log _log2 _pow _sinf _tanf
        _access _fclose _fopen _fopen$DARWIN_EXTSN _fwrite _getenv _getpid _mkdir _nftw _remove _rename _sysconf _unlink
        _clock_gettime _nanosleep _timespec_get _sched_yield
        _pthread_atfork _pthread_cond_broadcast _pthread_cond_destroy _pthread_cond_init _pthread_cond_signal
        _pthread_cond_wait _pthread_create _pthread_detach _pthread_mutex_destroy _pthread_mutex_init
        _pthread_mutex_lock _pthread_mutex_trylock _pthread_mutex_unlock _pthread_once
    """,
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The path of the wheel. -O1 takes half the time; with -O3 clang builds the kernels in test_arm64.py."""
    with alone():
        return macos_wheel.build(tmp_path_factory.mktemp("macos"), "-O1")


@pytest.fixture(scope="module")
def extension(wheel):
    """Its extension module, as LIEF reads it."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".so")]
        assert len(names) == 1
        found = lief.MachO.parse(list(archive.read(names[0])))
    assert found.size == 1  # one architecture
    return found.at(0)


def imports(extension):
    """{library, or None: names}"""
    found = {}
    for symbol in extension.imported_symbols:
        if not symbol.numberof_sections and symbol.name != "dyld_stub_binder":  # LIEF lists some that are our own
            ordinal = symbol.library_ordinal
            library = extension.libraries[ordinal - 1].name if 0 < ordinal <= len(extension.libraries) else None
            found.setdefault(library, set()).add(symbol.name)
    return found


def test_the_wheel_is_for_this_python_on_apple_silicon_from_macos_14_on(wheel):
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert wheel.name.endswith(f"-{version}-{version}-macosx_14_0_arm64.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert f"anex/_native.cpython-{version[2:]}-darwin.so" in archive.namelist()
        outside = [name for name in archive.namelist() if not re.match(r"anex(-[\d.]+\.dist-info)?/", name)]
        sources = [name for name in archive.namelist() if name.endswith((".c", ".m", ".h", ".pyx", ".tbd"))]
    assert not outside
    assert not sources


def test_the_extension_is_a_bundle_for_arm64_and_macos_14(extension):
    assert extension.header.cpu_type == lief.MachO.Header.CPU_TYPE.ARM64
    assert extension.header.file_type == lief.MachO.Header.FILE_TYPE.BUNDLE
    assert extension.build_version.platform == lief.MachO.BuildVersion.PLATFORMS.MACOS
    assert extension.build_version.minos == [14, 0, 0]
    assert lief.MachO.check_layout(extension)[0]


def test_the_extension_is_signed_ad_hoc_as_apple_silicon_demands(extension):
    assert extension.has_code_signature
    signature = bytes(extension.code_signature.content)
    directory = signature.index(b"\xfa\xde\x0c\x02")  # a CodeDirectory
    adhoc = 2
    assert int.from_bytes(signature[directory + 12 : directory + 16], "big") & adhoc


def test_the_extension_exports_python_s_entry_and_the_native_interface(extension):
    exported = {symbol.name for symbol in extension.exported_symbols}
    assert "_PyInit__native" in exported
    assert {"_anex_ane_open", "_anex_ane_compile", "_anex_ane_run", "_anex_plan_run"} <= exported
    assert not [name for name in exported if not re.match(r"_(PyInit__native|anex_\w+|__pyx_\w+)$", name)]


def test_nothing_private_is_linked(extension):
    assert [library.name for library in extension.libraries] == LIBRARIES
    assert not [name for names in imports(extension).values() for name in names if re.match(r"_+(ANE|IO|Apple)", name)]
    assert not [name for names in imports(extension).values() for name in names if "$__ANE" in name]


def test_every_import_is_known(extension):
    found = imports(extension)
    assert set(found) == {None, *IMPORTS}
    assert not [name for name in found[None] if not FLAT.fullmatch(name)]
    for library, known in IMPORTS.items():
        assert found[library] - set(known.split()) == set(), library


def test_the_kernels_for_float16_arithmetic_are_in_it(extension):
    assert {"_anex_isa_neon", "_anex_isa_generic"} <= {symbol.name for symbol in extension.symbols}


def test_nothing_of_apple_s_is_in_the_repository():
    """The runtime's headers are read where ziglang is installed; what stands here is our own."""
    kept = [path for path in macos_wheel.COMPAT.rglob("*") if path.is_file()]
    assert {path.name for path in kept} == {"Foundation.h", "Foundation.tbd", "libobjc.tbd"}
    assert not [path for path in kept if re.search(r"Copyright|APPLE_LICENSE|Apple Inc", path.read_text())]

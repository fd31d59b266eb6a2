# Programs of the Neural Engine, and its framework; included by _native.pyx.

@cython.final
cdef class AneProgram:
    """What the framework compiled and loaded. Closed with the last of its functions, or when it dies."""

    cdef anex_ane_program *program
    cdef int32_t functions
    cdef object __weakref__

    def __cinit__(self, bytes text not None, blobs, uint32_t qos=21, int way=0, uint32_t perf_stats_mask=0,
                  bint recompile=False):
        """`blobs`: {BLOBFILE path: bytes}."""
        cdef anex_ane_options options
        cdef anex_ane_blob *given
        cdef anex_status status
        cdef anex_error error
        cdef const char *c_text = text
        cdef size_t size = <size_t> len(text)
        cdef int32_t count = len(blobs)
        paths, datas = [path.encode() for path in blobs], list(blobs.values())
        options.qos, options.way, options.recompile = qos, <anex_ane_way> way, recompile
        options.perf_stats_mask = perf_stats_mask
        given = <anex_ane_blob *> PyMem_Malloc((<size_t> count + 1) * sizeof(anex_ane_blob))
        if given == NULL:
            raise MemoryError
        try:
            for i in range(count):
                given[i].path, given[i].data, given[i].bytes = <bytes> paths[i], <char *> <bytes?> datas[i], len(datas[i])
            with nogil:
                status = anex_ane_compile(c_text, size, count, given, &options, &self.program, &error)
            check(status, &error)
        finally:
            PyMem_Free(given)

    def __dealloc__(self):
        self.close()

    cpdef close(self):
        """Unload; twice is harmless. Its functions must be closed."""
        cdef anex_ane_program *program = self.program
        self.program = NULL
        if program != NULL:
            with nogil:
                anex_ane_free(program)

    cdef int need_open(self) except -1:
        if self.program == NULL:
            raise errors.ClosedError("this program is closed")
        return 0

    def info(self):
        """identifier, is_loaded, was_cached, queue_depth, compile_seconds, load_seconds, evaluations, loads, ..."""
        cdef anex_ane_info info
        self.need_open()
        with nogil:  # it waits for a run under way, which may wait for a callback, which waits for the GIL
            anex_ane_get_info(self.program, &info)
        return {
            "identifier": (<bytes> info.identifier).decode(), "is_loaded": info.is_loaded,
            "was_cached": info.was_cached, "queue_depth": info.queue_depth,
            "program_handle": info.program_handle, "intermediate_buffer_handle": info.intermediate_buffer_handle,
            "compile_seconds": info.compile_seconds, "load_seconds": info.load_seconds,
            "evaluations": info.evaluations, "loads": info.loads, "requests_built": info.requests_built,
        }

    def keep(self, bint keep):
        """Whether it stays loaded when another program needs the room."""
        self.need_open()
        anex_ane_keep(self.program, keep)

    def unload(self):
        """Give the hardware's memory back; the next run loads it again."""
        cdef anex_status status
        cdef anex_error error
        self.need_open()
        with nogil:
            status = anex_ane_unload(self.program, &error)
        check(status, &error)


@cython.final
@cython.no_gc_clear  # the function goes before its program
cdef class AneFunction(SurfaceFunction):
    """A function of an ``AneProgram``: its ports found in the compiled program's symbol tables.

    `inputs`, `outputs`: (name of the user, shape, dtype, name in the text, shape there, dtype there) each.
    """

    cdef AneProgram program
    cdef anex_ane_function *function
    cdef str name
    cdef anex_ane_stats measured
    cdef bint measures

    def __init__(self, AneProgram program not None, str name not None, inputs, outputs, bint measures=False):
        cdef bytes c_name = name.encode()
        cdef const char *text = c_name
        cdef anex_ane_port *ports
        cdef anex_status status
        cdef anex_error error
        cdef int32_t i
        if self.function != NULL:
            raise errors.Error("a function is bound once")
        program.need_open()
        everything = [*inputs, *outputs]
        self.name, self.measures = name, measures
        self.declare([port[:3] for port in inputs], [port[:3] for port in outputs])
        ports = <anex_ane_port *> PyMem_Malloc((<size_t> len(everything) + 1) * sizeof(anex_ane_port))
        if ports == NULL:
            raise MemoryError
        try:
            memset(ports, 0, (<size_t> len(everything) + 1) * sizeof(anex_ane_port))
            names = [port[3].encode() for port in everything]
            for i, port in enumerate(everything):
                ports[i].name = <bytes> names[i]
                init_tensor(&ports[i].tensor, port[4], find_dtype(port[5]), 0)
            with nogil:
                status = anex_ane_bind(program.program, text, self.n_inputs, ports, self.n_outputs,
                                       ports + self.n_inputs, &self.function, &error)
            check(status, &error)
            self.program = program
            program.functions += 1
            for i in range(self.n_inputs + self.n_outputs):
                lay_out(&self.specs[i], &ports[i].tensor, self.label(i))
                self.sizes[i] = ports[i].bytes
        finally:
            PyMem_Free(ports)

    def __dealloc__(self):
        self.is_closed = True
        self.free_when_idle()

    cdef void free_when_idle(self) noexcept:
        cdef anex_ane_function *function = self.function
        if self.running or function == NULL:
            return
        self.function = NULL
        with nogil:
            anex_ane_function_free(function)
        self.free_frames()
        self.program.functions -= 1
        if self.program.functions == 0:
            self.program.close()

    cdef int evaluate(self, Call *call) except -1:
        cdef anex_memory **memories = <anex_memory **> call.slots
        cdef anex_status status
        cdef anex_error error
        with nogil:
            if call.seconds == NULL:
                status = anex_ane_run(self.function, memories, &error)
            else:
                status = anex_ane_run_measured(self.function, memories, &self.measured, &error)
        return check(status, &error)

    cdef int start(self, Submission submission) except -1:
        cdef anex_memory **memories
        cdef anex_status status
        cdef anex_error error
        cdef void *context = <void *> submission
        if is_hung_up:
            raise errors.DeviceError("the process is ending: nothing is submitted to the Neural Engine any more")
        self.arrange(&submission.call)
        memories = <anex_memory **> submission.call.slots
        submission.launched = True
        Py_INCREF(submission)  # until it is done
        with nogil:
            status = anex_ane_submit(self.function, memories, ane_done, context, &error)
        if status != ANEX_OK:
            Py_DECREF(submission)
        return check(status, &error)

    def nodes(self):
        """The Neural Engine runs a function as one: ("ane", name, bytes of the outputs)."""
        cdef int64_t bytes = 0
        self.need_ready()
        for i in range(self.n_inputs, self.n_inputs + self.n_outputs):
            bytes += anex_tensor_nbytes(&self.specs[i])
        return (("ane", self.name, bytes),)

    def profile(self, tuple arguments not None, out=None):
        """Run, and return its seconds instead of the results: those of the hardware, where it tells them."""
        cdef double seconds = 0
        cdef double *timed = NULL
        self.need_ready()
        if self.measures:
            timed = &seconds
        begin = perf_counter()
        self.run_timed(items_of(arguments), len(arguments), out, timed)
        wall = perf_counter() - begin
        if self.measures and self.measured.has_stats and self.measured.hardware_ns:
            return (self.measured.hardware_ns * 1e-9,)
        return (wall,)

    def stats(self):
        """Of the program and of this function: identifier, loads, evaluations, requests_built, staged, counters, ..."""
        self.need_ready()
        found = self.program.info()
        found["staged"] = self.staged
        if self.measures and self.measured.has_stats:
            found["hardware_ns"] = self.measured.hardware_ns
            found["counters"] = {anex_ane_counter_name(i).decode(): self.measured.counters[i]
                                 for i in range(self.measured.n_counters)}
        return found

    def keep(self, bint keep):
        """Whether the program stays loaded when another one needs the room."""
        self.need_ready()
        self.program.keep(keep)


cdef extern from *:
    """
    #include <stdatomic.h>
    #include <time.h>
    static atomic_bool is_hung_up;
    static atomic_int n_calling; /* threads of the framework that are in Python, or on their way */
    static bool begin_calling(void) {
        atomic_fetch_add(&n_calling, 1);
        if (!atomic_load(&is_hung_up)) return true;
        atomic_fetch_sub(&n_calling, 1);
        return false;
    }
    static void end_calling(void) { atomic_fetch_sub(&n_calling, 1); }
    static void hang_up(void) {
        atomic_store(&is_hung_up, true);
        for (int ms = 0; ms < 1000 && atomic_load(&n_calling); ms++) /* a forked child counts its parent's */
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    """
    bint is_hung_up
    bint begin_calling() nogil
    void end_calling() nogil
    void hang_up() nogil


def ane_hang_up():
    """From now on the framework's threads do not call Python, which is about to end."""
    with nogil:
        hang_up()


cdef void ane_done(void *context, anex_status status, const anex_error *error) noexcept nogil:
    """The framework has run a submission."""
    if begin_calling():
        tell_done(context, status, error)
        end_calling()


cdef void tell_done(void *context, anex_status status, const anex_error *error) noexcept with gil:
    """What follows is the business of a thread of Python's."""
    cdef Submission submission = <Submission> context
    submission.status = status
    if error != NULL:
        submission.error = error[0]
    else:
        submission.error.text[0] = 0
    done, submission.done = submission.done, None
    Py_DECREF(submission)  # `submission` holds it still
    done(submission)


# ---- the framework ----------------------------------------------------------------------------

def ane_open():
    """Open the framework, once per process; the reason why that cannot be, or None."""
    cdef anex_error error
    cdef anex_status status
    with nogil:
        status = anex_ane_open(&error)
    return None if status == ANEX_OK else (<bytes> error.text).decode(errors="replace")


def ane_is_open():
    """Whether tensors are made of surfaces."""
    return anex_ane_is_open()


def ane_device():
    """has_ane, is_virtual_machine, anes, cores, board_type, architecture, subtype, variant, product, build, framework."""
    cdef anex_ane_device device
    cdef anex_error error
    check(anex_ane_get_device(&device, &error), &error)
    found = {name: (<bytes> text).decode(errors="replace") for name, text in (
        ("architecture", device.architecture), ("subtype", device.subtype), ("variant", device.variant),
        ("product", device.product), ("build", device.build), ("framework", device.framework))}
    return found | {"has_ane": device.has_ane, "is_virtual_machine": device.is_virtual_machine,
                    "anes": device.anes, "cores": device.cores, "board_type": device.board_type}


def ane_selectors():
    """What the framework was expected to answer to, and what was found: one dict a selector."""
    cdef anex_ane_selector selector
    cdef anex_error error
    found = []
    for i in range(anex_ane_selector_count()):
        check(anex_ane_get_selector(i, &selector, &error), &error)
        found.append({"class": selector.class_name.decode(), "name": selector.name.decode(), "kind": chr(selector.kind),
                      "is_required": selector.is_required, "expected": selector.expected.decode(),
                      "found": (<bytes> selector.found).decode(errors="replace"),
                      "has_class": selector.has_class, "fits": selector.fits})
    return found


def ane_account():
    """compiles, compile_limit, loaded, load_limit, cache_hits, load_retries, evictions of this process."""
    return anex_ane_get_account()


def ane_set_limits(int32_t compile_limit, int32_t load_limit):
    """How many programs this process compiles at most, and keeps loaded; 0: any number."""
    anex_ane_set_limits(compile_limit, load_limit)


def ane_cache_has(str identifier not None):
    """Whether the framework holds the compiled program."""
    cdef bytes text = identifier.encode()
    cdef c_bool has = False
    cdef anex_error error
    check(anex_ane_cache_has(text, &has, &error), &error)
    return <bint> has


def ane_cache_purge(str identifier not None):
    """Have the framework forget the compiled program."""
    cdef bytes text = identifier.encode()
    cdef anex_error error
    check(anex_ane_cache_purge(text, &error), &error)

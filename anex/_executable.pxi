# What every device's program shares: it is called with operands, which are pinned, checked and given to the device, and
# gives results; included by _native.pyx, because only one extension may hold the native code: two would each have
# their own thread pool.

cdef enum:
    FEW = 16  # operands up to which a call allocates nothing


cdef struct Call:              # one run of an Executable
    Operand *operands          # the inputs, then the outputs
    void **slots               # what the device is given for each
    int32_t held               # operands pinned so far
    double *seconds            # of each node, where a profile is asked for
    Frame *frame               # the surfaces that operands go through, where some have to: _surfaces.pxi


cdef class Executable:
    """A program of some device. ``Plan``, ``AneFunction`` and ``RemoteFunction`` say how it is run."""

    cdef list input_names, output_names
    cdef anex_tensor *specs    # of the inputs, then of the outputs; data unused
    cdef int32_t n_inputs, n_outputs, running
    cdef bint is_closed

    def __dealloc__(self):
        PyMem_Free(self.specs)

    # ---- what a device adds

    cdef int launch(self, Call *call) except -1:
        """Run on the operands, which are pinned and fit."""
        raise NotImplementedError

    cdef void settle(self, Call *call) noexcept:
        """Take back what launch() lent to the call; it may have failed half-way."""

    cdef void free_when_idle(self) noexcept:
        """Free what the device holds if the program is closed and nothing runs."""

    cdef int new_result(self, Tensor tensor, int32_t i) except -1:
        """Memory for operand i, an output, laid out as the device likes it."""
        tensor.t = self.specs[i]
        return allocate(tensor, 0, False)

    # ---- running

    cdef int need_ready(self) except -1:
        if self.is_closed or self.specs == NULL:
            raise errors.ClosedError("this program is closed")
        return 0

    def close(self):
        """Free the program; runs that are under way finish first. Twice is harmless."""
        self.is_closed = True
        self.free_when_idle()

    def run(self, tuple arguments not None, out=None):
        """Run on one Tensor or buffer per input; into `out` (one, or a tuple), or into new tensors."""
        return self.run_timed(items_of(arguments), len(arguments), out, NULL)

    def begin(self, tuple arguments not None, out=None):
        """A call whose operands are pinned now, to be run later."""
        return Submission(self, arguments, out)

    cdef object run_timed(self, PyObject *const *arguments, Py_ssize_t count, out, double *seconds):
        cdef Operand few[FEW]
        cdef void *pointers[FEW]
        cdef Call call
        cdef int32_t total = self.n_inputs + self.n_outputs
        self.need_ready()
        results = self.results(out)
        call.operands, call.slots, call.held, call.seconds, call.frame = few, pointers, 0, seconds, NULL
        if total > FEW:
            allocate_call(&call, total)
        self.running += 1
        try:
            self.hold(&call, arguments, count, results, out is not None)
            self.launch(&call)
        finally:
            self.let_go(&call)
            if total > FEW:
                free_call(&call)
        return self.returned(results, out)

    cdef object returned(self, results, out):
        if out is not None:
            return out
        return (<tuple> results)[0] if self.n_outputs == 1 else results

    cdef int hold(self, Call *call, PyObject *const *arguments, Py_ssize_t count, results, bint given) except -1:
        """Pin every operand and see that it fits. `results`: a tuple, or the only output itself."""
        cdef int32_t total = self.n_inputs + self.n_outputs
        cdef PyObject *only = <PyObject *> results
        cdef PyObject *const *outputs = items_of(<tuple> results) if type(results) is tuple else &only
        if count != self.n_inputs:
            raise errors.ArgumentError(f"the program takes {self.n_inputs} input(s) ({', '.join(self.input_names)}); "
                                       f"got {count}")
        while call.held < total:
            if call.held < self.n_inputs:
                self.take(&call.operands[call.held], call.held, <object> arguments[call.held])
            else:
                self.take(&call.operands[call.held], call.held, <object> outputs[call.held - self.n_inputs])
            call.held += 1
        if given:
            self.refuse_overlaps(call, arguments, outputs)
        return 0

    cdef void let_go(self, Call *call) noexcept:
        self.settle(call)
        while call.held > 0:
            call.held -= 1
            release(&call.operands[call.held])
        self.running -= 1
        if self.is_closed:
            self.free_when_idle()

    cdef object results(self, out):
        """What the outputs are written to: a tuple, or the only one itself."""
        cdef list made
        cdef Tensor tensor
        if out is None:
            made = []
            for i in range(self.n_inputs, self.n_inputs + self.n_outputs):
                tensor = Tensor.__new__(Tensor)
                self.new_result(tensor, i)
                made.append(tensor)
            return tuple(made)
        cdef bint several = isinstance(out, (tuple, list))
        if not several and self.n_outputs == 1:
            return out
        if several and type(out) is not tuple:
            out = tuple(out)
        count = len(out) if several else 1
        if count != self.n_outputs:
            raise errors.ArgumentError(f"the program has {self.n_outputs} output(s) ({', '.join(self.output_names)}); "
                                       f"out= has {count}")
        return out

    cdef inline int take(self, Operand *operand, int32_t i, argument) except -1:
        """Pin input i, or output i - n_inputs, and see that it fits."""
        if type(argument) is Tensor and pin(operand, <Tensor> argument, i >= self.n_inputs):
            if fits(operand.tensor, &self.specs[i]):
                return 0
            release(operand)
        return self.take_any(operand, i, argument)

    cdef int take_any(self, Operand *operand, int32_t i, argument) except -1:
        acquire(operand, argument, i >= self.n_inputs, self.label(i))
        if fits(operand.tensor, &self.specs[i]):
            return 0
        kind = errors.ShapeError if operand.tensor.dtype == self.specs[i].dtype else errors.DTypeError
        try:
            raise kind(mismatch(operand.tensor, &self.specs[i], self.label(i)))
        finally:
            release(operand)

    cdef str label(self, int32_t i):
        if i < self.n_inputs:
            return f"input {self.input_names[i]!r}"
        return f"output {self.output_names[i - self.n_inputs]!r}"

    cdef int refuse_overlaps(self, Call *call, PyObject *const *arguments, PyObject *const *outputs) except -1:
        cdef int32_t o, i, n = self.n_inputs
        for o in range(n, n + self.n_outputs):
            for i in range(o):
                if not overlap(&call.operands[o], &call.operands[i]):
                    continue
                other = <object> arguments[i] if i < n else <object> outputs[i - n]
                if numpy().shares_memory(<object> outputs[o - n], other):
                    names = self.input_names + self.output_names
                    raise errors.ArgumentError(f"out= for {names[o]!r} shares memory with {names[i]!r}; give it memory of its own")
        return 0


cdef extern from "Python.h":
    ctypedef struct PyTupleObject:
        PyObject **ob_item
    Py_ssize_t PyVectorcall_NARGS(size_t flags)


cdef inline PyObject *const *items_of(tuple items) noexcept:
    """Its items, which live as long as it does."""
    return (<PyTupleObject *> <PyObject *> items).ob_item


cdef int allocate_call(Call *call, int32_t total) except -1:
    call.operands = <Operand *> PyMem_Malloc(<size_t> total * sizeof(Operand))
    call.slots = <void **> PyMem_Malloc(<size_t> total * sizeof(void *))
    if call.operands == NULL or call.slots == NULL:
        free_call(call)
        raise MemoryError
    return 0


cdef void free_call(Call *call) noexcept:
    PyMem_Free(call.operands)
    PyMem_Free(call.slots)
    call.operands, call.slots = NULL, NULL


@cython.final
@cython.no_gc_clear  # what it holds is released through its executable
cdef class Submission:
    """A call with its operands pinned: ``run`` does it here; or the device does it, from ``start`` to ``finish``."""

    cdef Executable executable
    cdef object arguments, results, out, done
    cdef Call call
    cdef bint pinned, launched
    cdef anex_status status
    cdef anex_error error

    def __cinit__(self, Executable executable not None, tuple arguments not None, out):
        executable.need_ready()
        self.executable, self.arguments, self.out = executable, arguments, out
        self.results = executable.results(out)
        allocate_call(&self.call, executable.n_inputs + executable.n_outputs)
        executable.running += 1
        self.pinned = True  # from here on let_go() undoes it
        executable.hold(&self.call, items_of(arguments), len(arguments), self.results, out is not None)

    def __dealloc__(self):
        if self.pinned:
            self.executable.let_go(&self.call)
        free_call(&self.call)

    def run(self):
        """Run it in this thread; what the call returns."""
        if not self.pinned:
            raise errors.Error("a call is run once")
        try:
            self.executable.launch(&self.call)
            return self.executable.returned(self.results, self.out)
        finally:
            self.pinned = False
            self.executable.let_go(&self.call)

    def start(self, done):
        """Give it to the Neural Engine; `done(self)` is called once, on a thread of its framework. Waits for room in its queue."""
        if not self.pinned or self.launched:
            raise errors.Error("a call is run once")
        self.done = done
        (<AneFunction?> self.executable).start(self)

    def finish(self):
        """What the call returns, or raises, once the device is done."""
        if not self.pinned:
            raise errors.Error("a call is run once")
        try:
            check(self.status, &self.error)
            (<AneFunction> self.executable).deliver(&self.call)
            return self.executable.returned(self.results, self.out)
        finally:
            self.pinned = False
            self.executable.let_go(&self.call)


cdef class Binder:
    """What a ``Caller`` knows of its program, and how it is called: without a Python frame, a tuple or a dict in between."""

    cdef void *vectorcall
    cdef Executable native     # NULL where `run` is that of something else
    cdef object run
    cdef tuple names
    cdef bint stateful

    def __cinit__(self, *_, **__):
        self.vectorcall = <void *> call_program

    def __init__(self, executable, names, bint stateful):
        self.native = executable if isinstance(executable, Executable) else None
        self.run, self.names, self.stateful = executable.run, tuple(names), stateful

    def bind(self, tuple arguments, dict named, state):
        """What a call with these runs on: the inputs by position, then the states."""
        if named:
            arguments = by_position(self.names, arguments, named)
        return arguments + self.state_tensors(state) if self.stateful or state is not None else arguments


cdef object call_program(object caller, PyObject *const *arguments, size_t flags, PyObject *keywords):
    """``program(x, y=y, out=z)``. The arguments are read where they stand; inputs by name are put in order first."""
    cdef Binder binder = <Binder> caller
    cdef Py_ssize_t count = PyVectorcall_NARGS(flags), given = 0
    cdef PyObject *out = <PyObject *> None
    if keywords != NULL:
        given = len(<tuple> keywords)
    if given == 1 and (<tuple> keywords)[0] == "out":
        out = arguments[count]
        given = 0
    if given == 0 and not binder.stateful:
        if binder.native is not None:
            return binder.native.run_timed(arguments, count, <object> out, NULL)
    named = {(<tuple> keywords)[i]: <object> arguments[count + i] for i in range(given)}
    result = named.pop("out", <object> out)
    state = named.pop("state", None)
    return binder.run(binder.bind(tuple([<object> arguments[i] for i in range(count)]), named, state), result)


cdef extern from *:
    """
    #include <structmember.h>
    /* Before Python 3.12 a class made by a class statement does not inherit the flag, though it does the slots. */
    static PyObject *anex_caller_subclass(PyObject *type, PyObject *unused) {
        (void)unused;
        if (((PyTypeObject *)type)->tp_call == PyVectorcall_Call)
            ((PyTypeObject *)type)->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL;
        Py_RETURN_NONE;
    }
    /* A type with slots that Cython does not give: its instances have their vectorcall `offset` bytes from their start. */
    static PyObject *anex_new_caller(Py_ssize_t offset, PyObject *bases) {
        static PyMethodDef methods[] = {
            {"__init_subclass__", anex_caller_subclass, METH_CLASS | METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
        PyMemberDef members[] = {{"__vectorcalloffset__", T_PYSSIZET, offset, READONLY, NULL}, {NULL, 0, 0, 0, NULL}};
        PyType_Slot slots[] = {
            {Py_tp_call, (void *)PyVectorcall_Call},
            {Py_tp_members, members},
            {Py_tp_methods, methods},
            {Py_tp_doc, "What is called as ``program(x, y=y, out=z)``, without a Python frame in between."},
            {0, NULL},
        };
        PyType_Spec spec = {"anex._native.Caller", 0, 0,
                            Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_VECTORCALL, slots};
        return PyType_FromSpecWithBases(&spec, bases);
    }
    """
    object anex_new_caller(Py_ssize_t offset, tuple bases)


cdef object make_caller():
    cdef Binder one = Binder.__new__(Binder)
    return anex_new_caller(<char *> &one.vectorcall - <char *> <PyObject *> one, (Binder,))


Caller = make_caller()


cdef tuple by_position(tuple names, tuple arguments, dict named):
    rest = names[len(arguments):]
    if len(arguments) <= len(names) and set(rest) == set(named):
        return (*arguments, *[named[name] for name in rest])
    problems = [f"unknown {name!r}" for name in named if name not in names]
    problems += [f"{name!r} given twice" for name in named if name in names[:len(arguments)]]
    problems += [f"missing {name!r}" for name in rest if name not in named]
    if len(arguments) > len(names):
        problems.append(f"{len(arguments)} arguments by position")
    raise errors.ArgumentError(f"inputs: {', '.join(problems)}; the program takes {', '.join(names)}")

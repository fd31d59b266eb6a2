# The Neural Engine one message at a time, for `anex selftest`; included by _native.pyx.

from libc.string cimport memcpy

cdef extern from "anex.h" nogil:
    ctypedef struct anex_ane_answer:
        c_bool yes
        c_bool raised
        double seconds
        int64_t code
        char domain[64]
        char text[512]
    ctypedef struct anex_ane_raw:
        pass
    ctypedef int anex_ane_message
    enum:
        ANEX_ANE_SEND_COMPILE, ANEX_ANE_SEND_LOAD, ANEX_ANE_SEND_UNLOAD, ANEX_ANE_SEND_EXISTS, ANEX_ANE_SEND_PURGE
        ANEX_ANE_SEND_BEGIN_REAL_TIME, ANEX_ANE_SEND_END_REAL_TIME
    ctypedef struct anex_ane_raw_state:
        char identifier[256]
        char folder[1024]
        uint64_t program_handle, intermediate_buffer_handle, state
        int32_t queue_depth
    ctypedef struct anex_ane_raw_slot:
        anex_memory *memory
        int32_t symbol
    ctypedef int anex_ane_raw_way
    enum:
        ANEX_ANE_RAW_EVALUATE, ANEX_ANE_RAW_DIRECT, ANEX_ANE_RAW_REAL_TIME, ANEX_ANE_RAW_VALIDATE, ANEX_ANE_RAW_MAP
    ctypedef struct anex_ane_raw_run:
        int32_t n_inputs, n_outputs
        const anex_ane_raw_slot *inputs
        const anex_ane_raw_slot *outputs
        anex_memory *weights
        int32_t procedure
        uint32_t qos
        anex_ane_raw_way way
    ctypedef struct anex_ane_qos:
        const char *name
        uint32_t value
    anex_status anex_ane_raw_new(const char *, size_t, int32_t, const anex_ane_blob *, c_bool, anex_ane_raw **,
                                 anex_ane_answer *, anex_error *)
    void anex_ane_raw_free(anex_ane_raw *)
    void anex_ane_raw_send(anex_ane_raw *, anex_ane_message, uint32_t, anex_ane_answer *)
    void anex_ane_raw_get_state(anex_ane_raw *, anex_ane_raw_state *)
    size_t anex_ane_raw_attributes(anex_ane_raw *, char *, size_t)
    anex_status anex_ane_raw_surface(size_t, anex_memory **, anex_error *)
    void anex_ane_raw_evaluate(anex_ane_raw *, const anex_ane_raw_run *, anex_ane_answer *)
    void anex_ane_raw_chain(anex_ane_raw *, const anex_ane_raw_run *, anex_ane_answer *)
    int32_t anex_ane_raw_qos(anex_ane_qos *, int32_t, anex_ane_answer *)


cdef dict answer_record(const anex_ane_answer *answer):
    return {"yes": bool(answer.yes), "raised": bool(answer.raised), "seconds": answer.seconds, "code": answer.code,
            "domain": (<bytes> answer.domain).decode(errors="replace"),
            "text": (<bytes> answer.text).decode(errors="replace")}


@cython.final
cdef class AneSurface:
    """A surface of exactly so many bytes."""

    cdef anex_memory *memory

    def __cinit__(self, size_t size):
        cdef anex_error error
        check(anex_ane_raw_surface(size, &self.memory, &error), &error)

    def __dealloc__(self):
        anex_memory_release(self.memory)

    def write(self, bytes data not None):
        """Bytes from the start on; what follows them stays."""
        if <size_t> len(data) > anex_memory_bytes(self.memory):
            raise errors.ShapeError(f"{len(data)} bytes for a surface of {anex_memory_bytes(self.memory)}")
        anex_memory_lock(self.memory)
        memcpy(anex_memory_data(self.memory), <const char *> data, <size_t> len(data))
        anex_memory_unlock(self.memory)

    def read(self):
        anex_memory_lock(self.memory)
        data = (<const char *> anex_memory_data(self.memory))[:anex_memory_bytes(self.memory)]
        anex_memory_unlock(self.memory)
        return data


RAW_MESSAGES = {"compile": ANEX_ANE_SEND_COMPILE, "load": ANEX_ANE_SEND_LOAD, "unload": ANEX_ANE_SEND_UNLOAD,
                "exists": ANEX_ANE_SEND_EXISTS, "purge": ANEX_ANE_SEND_PURGE,
                "begin_real_time": ANEX_ANE_SEND_BEGIN_REAL_TIME, "end_real_time": ANEX_ANE_SEND_END_REAL_TIME}
RAW_WAYS = {"evaluate": ANEX_ANE_RAW_EVALUATE, "direct": ANEX_ANE_RAW_DIRECT, "real_time": ANEX_ANE_RAW_REAL_TIME,
            "validate": ANEX_ANE_RAW_VALIDATE, "map": ANEX_ANE_RAW_MAP}


@cython.final
cdef class AneRaw:
    """One in-memory model. ``made`` is what the framework answered when asked for it; without one nothing else works."""

    cdef anex_ane_raw *raw
    cdef readonly dict made

    def __cinit__(self, bytes text, dict blobs, bint nil_weights=False):
        cdef anex_ane_blob *list_ = <anex_ane_blob *> PyMem_Malloc((len(blobs) + 1) * sizeof(anex_ane_blob))
        cdef anex_ane_answer answer
        cdef anex_status status
        cdef anex_error error
        cdef const char *c_text = text
        cdef size_t size = len(text)
        cdef int32_t n = len(blobs)
        if list_ == NULL:
            raise MemoryError
        try:
            kept = [(path.encode(), data) for path, data in blobs.items()]
            for i, (path, data) in enumerate(kept):
                list_[i].path = <bytes> path
                list_[i].data = <const char *> <bytes> data
                list_[i].bytes = len(data)
            with nogil:
                status = anex_ane_raw_new(c_text, size, n, list_, nil_weights, &self.raw, &answer, &error)
            check(status, &error)
        finally:
            PyMem_Free(list_)
        self.made = answer_record(&answer)

    def __dealloc__(self):
        anex_ane_raw_free(self.raw)

    def close(self):
        cdef anex_ane_raw *raw = self.raw
        self.raw = NULL
        with nogil:
            anex_ane_raw_free(raw)

    cdef int need_model(self) except -1:
        if self.raw == NULL:
            raise errors.ClosedError("the framework gave no model, or it is closed")
        return 0

    def send(self, str message, uint32_t qos=21):
        """What the model answered: ``yes``, ``raised``, ``seconds``, ``code``, ``domain``, ``text``."""
        cdef anex_ane_answer answer
        cdef anex_ane_message code = RAW_MESSAGES[message]
        self.need_model()
        with nogil:
            anex_ane_raw_send(self.raw, code, qos, &answer)
        return answer_record(&answer)

    def state(self):
        cdef anex_ane_raw_state state
        self.need_model()
        anex_ane_raw_get_state(self.raw, &state)
        return {"identifier": state.identifier.decode(), "folder": state.folder.decode(), "state": state.state,
                "program_handle": state.program_handle, "queue_depth": state.queue_depth,
                "intermediate_buffer_handle": state.intermediate_buffer_handle}

    def attributes(self):
        """``modelAttributes`` as JSON; empty where there are none."""
        cdef size_t size
        cdef char *room
        self.need_model()
        size = anex_ane_raw_attributes(self.raw, NULL, 0)
        room = <char *> PyMem_Malloc(size + 1)
        if room == NULL:
            raise MemoryError
        try:
            size = anex_ane_raw_attributes(self.raw, room, size)
            return room[:size].decode()
        finally:
            PyMem_Free(room)

    def evaluate(self, inputs, outputs, *, AneSurface weights=None, int32_t procedure=0, uint32_t qos=21,
                 str way="evaluate", bint chain=False):
        """``inputs`` and ``outputs``: (surface, symbol index) each. ``chain``: prepare one instead."""
        cdef anex_ane_raw_slot slots[64]
        cdef anex_ane_raw_run run
        cdef anex_ane_answer answer
        cdef AneSurface surface
        self.need_model()
        inputs, outputs = list(inputs), list(outputs)
        if len(inputs) + len(outputs) > 64:
            raise errors.ArgumentError("at most 64 surfaces")
        for i, (each, symbol) in enumerate(inputs + outputs):
            surface = each
            slots[i].memory, slots[i].symbol = surface.memory, symbol
        run.n_inputs, run.n_outputs, run.inputs, run.outputs = len(inputs), len(outputs), slots, slots + len(inputs)
        run.weights = NULL if weights is None else weights.memory
        run.procedure, run.qos, run.way = procedure, qos, RAW_WAYS[way]
        with nogil:
            if chain:
                anex_ane_raw_chain(self.raw, &run, &answer)
            else:
                anex_ane_raw_evaluate(self.raw, &run, &answer)
        return answer_record(&answer)


def ane_qos():
    """{class: number} of the framework's QoS mapper; those that it answers to."""
    cdef anex_ane_qos classes[6]
    cdef anex_ane_answer answer
    cdef int32_t n
    if (reason := ane_open()) is not None:
        raise errors.UnsupportedError(reason)
    n = anex_ane_raw_qos(classes, 6, &answer)
    return {classes[i].name.decode(): classes[i].value for i in range(n)}

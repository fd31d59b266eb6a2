# csrc/anex.h for Cython: declarations only.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

cdef extern from "<stdbool.h>":
    ctypedef bint c_bool "bool"


cdef extern from "anex.h" nogil:
    ctypedef enum anex_status:
        ANEX_OK
    ctypedef struct anex_error:
        char text[1024]
    const char *anex_status_exception(anex_status status)

    ctypedef int anex_dtype
    enum:
        ANEX_F16
        ANEX_F32
        ANEX_STRING
        ANEX_DTYPE_COUNT
    ctypedef struct anex_dtype_info:
        const char *name
        const char *format
        int32_t bits
        int32_t dlpack
    const anex_dtype_info anex_dtypes[]

    enum: ANEX_MAX_RANK
    ctypedef struct anex_tensor:
        void *data
        int64_t shape[8]
        int64_t strides[8]
        int32_t rank
        anex_dtype dtype
    anex_status anex_tensor_init(anex_tensor *, anex_dtype, int32_t, const int64_t *, int64_t, anex_error *)
    int64_t anex_tensor_size(const anex_tensor *)
    int64_t anex_tensor_nbytes(const anex_tensor *)
    int64_t anex_tensor_extent(const anex_tensor *)
    bint anex_tensor_is_packed(const anex_tensor *)
    anex_status anex_tensor_copy(const anex_tensor *, const anex_tensor *, anex_error *)

    ctypedef struct anex_memory:
        pass
    anex_status anex_memory_new(size_t, c_bool, anex_memory **, anex_error *)
    anex_status anex_memory_wrap(void *, void (*)(void *) noexcept, void *, anex_memory **, anex_error *)
    void *anex_memory_data(const anex_memory *)
    anex_memory *anex_memory_retain(anex_memory *)
    void anex_memory_release(anex_memory *)
    uint32_t anex_memory_surface_id(const anex_memory *)
    anex_status anex_memory_of_surface(uint32_t, anex_memory **, anex_error *)
    void anex_memory_lock(anex_memory *)
    void anex_memory_unlock(anex_memory *)
    size_t anex_memory_bytes(const anex_memory *)

    ctypedef struct anex_plan:
        pass
    ctypedef int32_t anex_value
    ctypedef struct anex_kernel_info:
        const char *op
        const char *inputs
        uint32_t dtypes
    ctypedef struct anex_plan_stats:
        int64_t nodes
        int64_t arena_bytes
        int64_t packed_bytes
        int64_t live_bytes_peak
    const anex_kernel_info *anex_kernel_list(int32_t *)
    int32_t anex_isa_list(const char **, int32_t)
    anex_status anex_plan_new(const char *, bint, anex_plan **, anex_error *)
    void anex_plan_free(anex_plan *)
    anex_status anex_plan_input(anex_plan *, anex_dtype, int32_t, const int64_t *, anex_value *, anex_error *)
    anex_status anex_plan_value(anex_plan *, anex_dtype, int32_t, const int64_t *, anex_value *, anex_error *)
    anex_status anex_plan_constant(anex_plan *, const anex_tensor *, anex_value *, anex_error *)
    void anex_plan_lasting(anex_plan *, anex_value)
    anex_status anex_plan_control(anex_plan *, const char *, const char *, int32_t, const anex_value *, int32_t,
                                  const anex_value *, int32_t, const anex_value *, int32_t, anex_plan *const *,
                                  anex_error *)
    anex_status anex_plan_op(anex_plan *, const char *, const char *, int32_t, const anex_value *, int32_t,
                             const anex_value *, int32_t, const anex_value *, anex_value, anex_error *)
    anex_status anex_plan_finish(anex_plan *, int32_t, const anex_value *, anex_error *)
    c_bool anex_plan_is_brief(const anex_plan *)
    const anex_tensor *anex_plan_tensor(const anex_plan *, anex_value)
    anex_plan_stats anex_plan_get_stats(const anex_plan *)
    anex_status anex_plan_run(anex_plan *, const anex_tensor *const *, const anex_tensor *const *, anex_error *)
    anex_status anex_plan_profile(anex_plan *, const anex_tensor *const *, const anex_tensor *const *, double *,
                                  anex_error *)
    ctypedef struct anex_node_info:
        const char *op
        const char *name
        int64_t output_bytes
    anex_node_info anex_plan_get_node(const anex_plan *, int32_t)
    ctypedef struct anex_crossing:
        const char *op
        const char *name
        int64_t count
        double most
    int32_t anex_plan_take_crossings(anex_plan *, anex_crossing *, int32_t)
    ctypedef struct anex_limits:
        double flops_per_second
        double bytes_per_second
    anex_status anex_measure_limits(anex_limits *, anex_error *)
    ctypedef enum anex_rule:
        ANEX_SGD
        ANEX_ADAM
        ANEX_ADAMW
        ANEX_SUM
    ctypedef struct anex_optimizer:
        anex_rule rule
        c_bool nesterov
        c_bool measures
        int64_t step
        double rate
        double beta1
        double beta2
        double epsilon
        double gradient_scale
        double clip
    ctypedef struct anex_parameter:
        const char *name
        const anex_tensor *weight
        const anex_tensor *gradient
        const anex_tensor *copy
        const anex_tensor *first
        const anex_tensor *second
        double weight_decay
    anex_status anex_optimizer_step(const anex_optimizer *, int32_t, const anex_parameter *, double *, c_bool *,
                                    anex_error *)
    void anex_set_num_threads(int32_t)
    int32_t anex_get_num_threads()

    anex_status anex_ane_open(anex_error *)
    bint anex_ane_is_open()
    ctypedef struct anex_ane_device:
        bint has_ane, is_virtual_machine
        uint32_t anes, cores
        int64_t board_type
        char architecture[32]
        char subtype[32]
        char variant[32]
        char product[64]
        char build[32]
        char framework[256]
    anex_status anex_ane_get_device(anex_ane_device *, anex_error *)
    ctypedef struct anex_ane_selector:
        const char *class_name
        const char *name
        char kind
        bint is_required, has_class, fits
        const char *expected
        char found[128]
    int32_t anex_ane_selector_count()
    anex_status anex_ane_get_selector(int32_t, anex_ane_selector *, anex_error *)

    ctypedef struct anex_ane_program:
        pass
    ctypedef struct anex_ane_blob:
        const char *path
        const void *data
        size_t bytes
    ctypedef enum anex_ane_way:
        ANEX_ANE_EVALUATE
    ctypedef struct anex_ane_options:
        uint32_t qos, perf_stats_mask
        anex_ane_way way
        bint recompile
    anex_status anex_ane_compile(const char *, size_t, int32_t, const anex_ane_blob *, const anex_ane_options *,
                                 anex_ane_program **, anex_error *)
    void anex_ane_free(anex_ane_program *)
    anex_status anex_ane_unload(anex_ane_program *, anex_error *)
    void anex_ane_keep(anex_ane_program *, bint)
    ctypedef struct anex_ane_info:
        char identifier[256]
        bint is_loaded, was_cached
        int32_t queue_depth
        uint64_t program_handle, intermediate_buffer_handle
        double compile_seconds, load_seconds
        int64_t evaluations, loads, requests_built
    void anex_ane_get_info(anex_ane_program *, anex_ane_info *)
    ctypedef struct anex_ane_port:
        const char *name
        anex_tensor tensor
        int64_t bytes
        int32_t symbol
    ctypedef struct anex_ane_function:
        pass
    anex_status anex_ane_bind(anex_ane_program *, const char *, int32_t, anex_ane_port *, int32_t, anex_ane_port *,
                              anex_ane_function **, anex_error *)
    void anex_ane_function_free(anex_ane_function *)
    anex_status anex_ane_run(anex_ane_function *, anex_memory *const *, anex_error *)
    ctypedef void (*anex_ane_done)(void *, anex_status, const anex_error *) noexcept
    anex_status anex_ane_submit(anex_ane_function *, anex_memory *const *, anex_ane_done, void *, anex_error *)
    enum: ANEX_ANE_COUNTERS
    ctypedef struct anex_ane_stats:
        bint has_stats
        uint64_t hardware_ns
        int32_t n_counters
        uint64_t counters[29]
    anex_status anex_ane_run_measured(anex_ane_function *, anex_memory *const *, anex_ane_stats *, anex_error *)
    const char *anex_ane_counter_name(int32_t)
    ctypedef struct anex_ane_account:
        int32_t compiles, compile_limit, loaded, load_limit
        int64_t cache_hits, load_retries, evictions
    anex_ane_account anex_ane_get_account()
    void anex_ane_set_limits(int32_t, int32_t)
    anex_status anex_ane_cache_has(const char *, c_bool *, anex_error *)
    anex_status anex_ane_cache_purge(const char *, anex_error *)


cdef class Tensor:
    cdef anex_tensor t
    cdef anex_memory *memory
    cdef char *low             # the bytes of its elements: from here
    cdef char *high            # to before this
    cdef Py_ssize_t exports, locks, packed_bytes, packed_stride
    cdef uint32_t surface  # its number, or 0: plain memory
    cdef bint is_readonly
    cdef object __weakref__
    cdef int need_open(self) except -1
    cdef void lock(self) noexcept
    cdef void unlock(self) noexcept

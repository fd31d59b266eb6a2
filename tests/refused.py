"""Which ops of the tests the Neural Engine's rules refuse, and by which rule: all others run on the stand-in."""

import re

# FINDING: one line of an UnsupportedError, "op 'name': [rule] what was found"
FINDING = re.compile(r"^\s*(?:\w+: )?(\w+) '[^']*': \[([\w-]+)\]", re.MULTILINE)

_BY_RULE = {
    "axis-extent": """
        cast reshape
    """,
    "dynamic-weights": """
        conv conv_transpose
    """,
    "integer-compute": """
        abs add crop_resize cumsum equal exp2 floor_div greater greater_equal less less_equal linear matmul
        maximum minimum mod mul not_equal pow real_div reduce_l1_norm reduce_l2_norm reduce_log_sum
        reduce_log_sum_exp reduce_max reduce_mean reduce_min reduce_prod reduce_sum reduce_sum_square resample
        resize sign square sub threshold while_loop
    """,
    "kernel-width": """
        conv
    """,
    "state": """
        coreml_update_state read_state
    """,
    "unsupported-op": """
        band_part cond conv_quantized gru lstm non_zero one_hot random_bernoulli
        random_categorical random_normal reverse_sequence rnn scatter scatter_along_axis scatter_nd
        sliding_windows while_loop
    """,
}
RULES = {(op, rule) for rule, ops in _BY_RULE.items() for op in ops.split()}


def rules_of(message: str) -> list[tuple[str, str]]:
    """(op, rule) of each finding in the message."""
    return list(dict.fromkeys(FINDING.findall(message)))

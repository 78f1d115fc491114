"""The models that a simulator can have: those of the recorded exchanges, and some under well-known names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import evolve

from foreman.simulator.engine.models import Model, digest_of, parse_name

_CHAT = "{{ range .Messages }}[{{ .Role }}] {{ .Content }}\n{{ end }}<|go|>"
_TOOLS = (
    "{{ if .Tools }}[tools] {{ json .Tools }}\n{{ end }}{{ range .Messages }}[{{ .Role }}] {{ .Content }}"
    '{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "parameters": {{ .Function.Arguments }}}{{ end }}\n{{ end }}<|go|>'
)
_THINK = (
    "{{ range .Messages }}[{{ .Role }}] {{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}\n"
    "{{ end }}<|go|>"
)
_STOPS = (("stop", "<|im_start|>"), ("stop", "<|im_end|>"))
_SETTINGS = (("num_ctx", "2048"), ("num_predict", "64"), *_STOPS)

_LLAMA_INFO: dict[str, Any] = {
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 4,
    "llama.attention.layer_norm_rms_epsilon": 1e-05,
    "llama.rope.dimension_count": 64,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.add_space_prefix": False,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.unknown_token_id": 0,
}
_BERT_INFO: dict[str, Any] = {
    "bert.attention.causal": False,
    "bert.attention.head_count": 4,
    "bert.attention.layer_norm_epsilon": 1e-12,
    "bert.pooling_type": 1,
    "tokenizer.ggml.bos_token_id": 101,
    "tokenizer.ggml.eos_token_id": 102,
    "tokenizer.ggml.mask_token_id": 103,
    "tokenizer.ggml.model": "bert",
    "tokenizer.ggml.padding_token_id": 0,
    "tokenizer.ggml.seperator_token_id": 102,
    "tokenizer.ggml.token_type_count": 2,
    "tokenizer.ggml.unknown_token_id": 100,
}


def _tensors(*rows: tuple[str, list[int]]) -> list[dict[str, Any]]:
    return [{"name": name, "type": "F32", "shape": shape} for name, shape in rows]


def _llama_tensors(width: int, vocab: int, inner: int) -> list[dict[str, Any]]:
    return _tensors(
        ("token_embd.weight", [width, vocab]),
        ("output_norm.weight", [width]),
        ("output.weight", [width, vocab]),
        ("blk.0.attn_norm.weight", [width]),
        ("blk.0.ffn_norm.weight", [width]),
        *((f"blk.0.attn_{part}.weight", [width, width]) for part in ("q", "k", "v", "output")),
        ("blk.0.ffn_gate.weight", [width, inner]),
        ("blk.0.ffn_up.weight", [width, inner]),
        ("blk.0.ffn_down.weight", [inner, width]),
    )


def _bert_tensors(width: int, vocab: int, inner: int) -> list[dict[str, Any]]:
    def linear(name: str, shape: list[int]) -> list[tuple[str, list[int]]]:
        return [(f"{name}.weight", shape), (f"{name}.bias", shape[-1:])]

    norm = [width]
    return _tensors(
        ("token_embd.weight", [width, vocab]),
        ("token_types.weight", [width, 2]),
        ("position_embd.weight", [width, 512]),
        *linear("token_embd_norm", norm),
        *(row for part in ("q", "k", "v", "output") for row in linear(f"blk.0.attn_{part}", [width, width])),
        *linear("blk.0.attn_output_norm", norm),
        *linear("blk.0.ffn_up", [width, inner]),
        *linear("blk.0.ffn_down", [inner, width]),
        *linear("blk.0.layer_output_norm", norm),
    )


def _tiny(name: str, digest: str, weights: str, when: tuple[int, str], count: int, vocab: int, **more: Any) -> Model:
    """One of the recorded models; ``when`` is when it was made: seconds since the epoch, and the digits of the fraction."""
    size: int = more.pop("size")
    return Model(
        **{
            "name": parse_name(name),
            "text_style": "babble",
            "digest": digest,
            "weights": weights,
            "seconds": when[0],
            "nanos": when[1],
            "parameter_size": f"{round(count / 1000)}K",
            "parameter_count": count,
            "quantization": "F32",
            "loaded_quantization": "unknown",
            "size": size,
            "loaded_size": size + 7_871_319,
            "vram": 0,
            "context_length": 8192,
            "embedding_length": 256,
            "num_ctx": 2048,
            "num_predict": 64,
            "feed_forward_length": 64,
            "vocab_size": vocab,
            "template": _CHAT,
            "parameters": _SETTINGS,
            "extras": {"info": _LLAMA_INFO, "tensors": _llama_tensors(256, vocab, 64), "file": f"{name[5:]}.gguf"},
            **more,
        }
    )


def _recorded() -> Iterable[Model]:
    yield _tiny(
        "tiny-bad", "7fc1f50b426cdcfdbd452adb0b37105b0490a340d8a000d0f253c05abb5ec92f", digest_of("bad"),
        (1_795_470_303, "197697146"), 508_672, 400, size=2_045_492, text_style="bad",
    )  # fmt: skip
    yield _tiny(
        "tiny-embed", "f4ec01eb21b9520ab0fe294f5ba0ad76d5f9d68d6683269d97269862caef222a",
        "f58210de4160b32d3488db98d9634f5e5452d44e0ba948efbe878f1560bb3a1d", (1_795_470_303, "45635707"), 81_984, 242,
        size=335_541, loaded_size=1_719_664, family="bert", text_style="embed", capabilities=("embedding",),
        context_length=512, embedding_length=64, num_ctx=512, feed_forward_length=128, template="{{ .Prompt }}",
        parameters=(), extras={"info": _BERT_INFO, "tensors": _bert_tensors(64, 242, 128), "file": "embed.gguf"},
    )  # fmt: skip
    yield _tiny(
        "tiny-slow", "5334016e1624aac8d5230ccb9b7ac8310bf5cb8743b9b6a49f4a48591ef8b15f", digest_of("slow"),
        (1_795_470_302, "295952323"), 85_590_016, 416, size=171_240_769, loaded_size=346_879_426, text_style="slow",
        parameter_size="85.59M", quantization="F16", loaded_quantization="F16", embedding_length=768, num_ctx=4096,
    )  # fmt: skip
    yield _tiny(
        "tiny-loop", "51d0257d82d98c3f238f314e3045db4f9731c9aa445da524fd099f055348156f", digest_of("loop"),
        (1_795_470_302, "589034599"), 494_336, 352, size=1_986_819, text_style="loop",
    )  # fmt: skip
    chat = _tiny(
        "tiny-chat", "505975be2674c1effac263dd82a2d70c1e8284ba2717f851016d0ace3fde27af",
        "fa1f405d5cb113d5f2cc2ef2613a0762d679f99485a43afc3ff0043fa7e2169f", (1_795_470_298, "197576852"), 525_056, 416,
        size=2_111_124,
    )  # fmt: skip
    yield evolve(
        chat, name=parse_name("tiny-jinja"), digest="f19be85d8e633302d0a5c1f2aa5c2ec3b29774979f75c9bf251e83863d5cd332",
        weights=digest_of("jinja"), seconds=1_795_470_302, nanos="868448737", size=2_111_161, template="{{ jinja }}",
    )  # fmt: skip
    yield _tiny(
        "tiny-think", "12d960794ed573cfa55283ef211eab9a21e7c2c95b3ceb8e289ec330af0cbf2c",
        "f09e643eb90daa5ffff44987f4e92e3ce0cfcc9cd8054f69eccd443c321d00c4", (1_795_470_299, "02265348"), 499_968, 367,
        size=2_009_677, text_style="think", capabilities=("completion", "thinking"), template=_THINK,
    )  # fmt: skip
    yield chat
    yield evolve(chat, name=parse_name("tiny-chat2"), nanos="210498063")
    yield _tiny(
        "tiny-other", "f9d8d4c9ffa8346aafe1f4e75c135ccb92774923929a53e88c767be21a8769ea", digest_of("other"),
        (1_795_470_298, "486092842"), 506_112, 379, size=2_034_452, loaded_size=9_909_042, text_style="greek",
    )  # fmt: skip
    yield _tiny(
        "tiny-tools", "4941232525d821f434a7eea6d2dcbfecbe4010d15df2e499ade839fc52f68eda",
        "76fe111d9e22dfe0bea04c7281d2b03b3881fa0d328da3c8bba688d5f047344d", (1_795_470_298, "749883541"), 496_384, 360,
        size=1_995_278, text_style="tools", capabilities=("completion", "tools"), template=_TOOLS,
    )  # fmt: skip
    yield _tiny(
        "tiny-compact", "efe73ccedef3a9c0882b237eaf859da2615eebe019d3ab81a1b881f7590e64ad", digest_of("compact"),
        (1_795_884_138, "297323244"), 497_408, 364, size=1_999_398, text_style="compact", capabilities=("completion", "tools"),
        template=_TOOLS,
    )  # fmt: skip


def chat_model(name: str, **more: Any) -> Model:
    """A chat model under any name."""
    full = parse_name(name)
    return Model(
        **{
            "name": full,
            "text_style": "plain",
            "digest": digest_of(f"manifest of {full.full}"),
            "weights": digest_of(f"weights of {full.full}"),
            "capabilities": ("completion", "tools"),
            "template": _TOOLS,
            "seconds": 1_795_480_000,
            **more,
        }
    )


def _friendly() -> Iterable[Model]:
    yield chat_model("llama3.2:3b")
    yield chat_model(
        "qwen3:8b", family="qwen3", capabilities=("completion", "tools", "thinking"), parameter_size="8.2B",
        parameter_count=8_190_735_360, size=5_225_388_164, loaded_size=6_500_000_000, vram=6_500_000_000,
        context_length=40_960, embedding_length=4_096,
    )  # fmt: skip
    yield chat_model(
        "nomic-embed-text:latest", family="nomic-bert", text_style="embed", capabilities=("embedding",), parameter_size="137M",
        parameter_count=136_727_040, quantization="F16", loaded_quantization="F16", size=274_302_450,
        loaded_size=600_000_000, vram=600_000_000, context_length=2_048, embedding_length=768, num_ctx=2_048,
        template="{{ .Prompt }}",
    )  # fmt: skip
    yield chat_model(
        "llava:7b", capabilities=("completion", "vision"), parameter_size="7B", parameter_count=7_241_732_096,
        size=4_733_363_377, loaded_size=6_000_000_000, vram=6_000_000_000, context_length=32_768, embedding_length=4_096,
    )  # fmt: skip


def models_named(names: Iterable[str]) -> list[Model]:
    """The models of the given names, in that order; a name that is not in the catalogue gets a plain chat model."""
    known = {model.name.key: model for model in (*_friendly(), *_recorded())}
    return [known.get(parse_name(name).key) or chat_model(name) for name in names]

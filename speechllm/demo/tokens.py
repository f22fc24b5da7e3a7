"""The ids that the model wrote, as coloured HTML: text pieces, marks, and audio codes.

token_html(processor, output)      # '<div class="tokens"><span class="text">good</span> ...'
"""

import html

from speechllm.pipelines.output import TaskOutput
from speechllm.processor import UnifiedProcessor
from speechllm.vocabulary import SEMANTIC, TEXT

STYLE = """
.tokens { line-height: 1.9; font-family: monospace; font-size: 13px; max-height: 16em; overflow-y: auto; }
.tokens span { padding: 1px 4px; margin: 1px; border-radius: 4px; color: #111827; }
.tokens span { white-space: pre; display: inline-block; }
.tokens .text { background: #dbeafe; } .tokens .audio { background: #fde68a; } .tokens .mark { background: #e5e7eb; }
"""


def token_html(processor: UnifiedProcessor, output: TaskOutput) -> str:
    """Return the tag and every id of an output, in order."""
    spans = [_span("mark", str(output.tag))]
    spans += [_token(processor, int(i)) for decoded in output.decoded for i in decoded.ids]
    return f'<div class="tokens">{" ".join(spans)}</div>'


def _token(processor: UnifiedProcessor, token: int) -> str:
    vocabulary = processor.vocabulary
    if token == processor.eos_id:
        return _span("mark", "end")
    if token == vocabulary.next_id:
        return _span("mark", "next")
    if token in vocabulary[SEMANTIC]:
        return _span("audio", str(token - vocabulary[SEMANTIC].start))
    assert token in vocabulary[TEXT], "the grammar lets nothing else through"
    return _span("text", str(processor.text_tokenizer.decode([token])) or "·")


def _span(kind: str, text: str) -> str:
    return f'<span class="{kind}">{html.escape(text)}</span>'

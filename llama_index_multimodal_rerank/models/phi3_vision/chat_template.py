"""The chat format of Phi-3 Vision as a Jinja template.

Plain string contents give the same text as the template in the published `tokenizer_config.json`. Contents in
transformers' list form are understood too: `{"type": "image"}` becomes the next numbered tag on a line of its
own.
"""

CHAT_TEMPLATE = (
    "{%- set images = namespace(count=0) -%}"
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>\n' -}}"
    "{%- if message['content'] is string -%}"
    "{{- message['content'] -}}"
    "{%- else -%}"
    "{%- for item in message['content'] -%}"
    "{%- if item['type'] == 'image' -%}"
    "{%- set images.count = images.count + 1 -%}"
    "{{- '<|image_' + images.count|string + '|>\n' -}}"
    "{%- elif item['type'] == 'text' -%}"
    "{{- item['text'] -}}"
    "{%- else -%}"
    "{{- raise_exception('content type ' + item['type']|string + ' is not supported; use image or text') -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{{- '<|end|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt and messages[-1]['role'] != 'assistant' -%}"
    "{{- '<|assistant|>\n' -}}"
    "{%- endif -%}"
)

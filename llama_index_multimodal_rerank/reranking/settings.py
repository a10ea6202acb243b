"""What a user can set of the reranker, and what is checked of it before anything is asked."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.bridge.pydantic import (
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate

from ..images.access import ImageAccess
from ..images.url_hosts import check_allow_urls
from ..vlm.resolve import DEFAULT_MODEL_NAME, DEFAULT_NUM_CROPS
from .options import Explain, RerankOptions, StrategyName
from .prompts import (
    DEFAULT_CAPTION_PROMPT,
    DEFAULT_RANK_PROMPT,
    DEFAULT_REASON_PROMPT,
    PROMPTS,
    RANK_VARIABLES,
)
from .ranking import OnBadAnswer
from .sheet_layout import MAX_CELLS

if TYPE_CHECKING:
    from typing_extensions import Self


class RerankSettings(BaseNodePostprocessor):
    """The fields of ``Phi3VisionRerank``."""

    model_config = ConfigDict(validate_assignment=True)

    model: Any = Field(
        default=DEFAULT_MODEL_NAME,
        frozen=True,
        description="Phi-3 Vision by its name on the hub or local folder; or 'demo', a tiny model in this "
        "package that was trained on drawings and knows nothing else (for a folder called demo write "
        "'./demo'); or a VisionLanguageModel; or a multimodal LLM of LlamaIndex.",
    )
    top_n: int = Field(default=3, gt=0, description="Nodes to return.")
    device: str | None = Field(
        default=None,
        frozen=True,
        description="Torch device of a model given by name. Default: the best one there is.",
    )
    dtype: str | None = Field(
        default=None,
        frozen=True,
        description="'float32', 'bfloat16' or 'float16', for a model given by name. Default: bfloat16 where "
        "the hardware computes in it, float32 elsewhere.",
    )
    keep_retrieval_score: bool = Field(
        default=True, description="Keep the score that nodes came with in metadata['retrieval_score']."
    )
    strategy: StrategyName = Field(
        default="listwise",
        description="'listwise' has the whole list written. 'first_token' sorts by the probability of each "
        "label to be written first: one forward pass; for models whose logits can be read.",
    )
    window: int = Field(
        default=9, ge=2, le=MAX_CELLS, description="Candidates on one sheet. More are ranked in windows."
    )
    stride: int | None = Field(
        default=None, ge=1, description="How far windows lie apart. Default: half a window."
    )
    permutations: int = Field(
        default=1,
        ge=1,
        description="Shuffled sheets per window, whose orders are counted together by Borda's rule.",
    )
    seed: int = Field(default=0, description="Seed of the shuffles.")
    caption: bool = Field(
        default=True, description="Have the query picture described first, and the words put in the prompt."
    )
    explain: Explain | None = Field(
        default=None,
        description="Ask why the best is the best: True, after the list; 'closer_look', apart, on a sheet of "
        "the query and the best alone. Default: 'closer_look' for the demo's model, which was taught so, "
        "else True.",
    )
    show_text: bool = Field(default=False, description="Write candidates' texts below their pictures.")
    num_crops: int | None = Field(
        default=None,
        frozen=True,
        ge=1,
        description="Tiles of 336 pixels that the model looks at, and that sheets are made for. Default: the "
        "model's own, else 16.",
    )
    max_new_tokens: int = Field(
        default=128, ge=1, description="Tokens for the reason; the list has its own. Local models only."
    )
    max_query_tokens: int = Field(
        default=512, ge=2, description="Tokens of the query's text in the prompt; the rest is cut off."
    )
    max_text_tokens: int = Field(
        default=64, ge=2, description="Tokens of each candidate's text in the prompt; the rest is cut off."
    )
    on_bad_answer: OnBadAnswer = Field(
        default="repair",
        description="An answer that does not name each candidate once: 'repair' it (first valid mentions, "
        "then the missing in retrieval order), 'retry' twice and then repair, 'keep_order', or 'raise'.",
    )
    on_error: Literal["raise", "keep_order"] = Field(
        default="raise",
        description="A model that gives no answer, or a query picture that cannot be read: 'raise', or "
        "'keep_order' of the retrieval and say so in the audit.",
    )
    rank_prompt: SerializeAsAny[BasePromptTemplate] = Field(
        default=DEFAULT_RANK_PROMPT,
        description="The question, a template or its text; variables: query, query_str, query_caption, "
        "num_candidates, labels, candidate_texts, and answer_format, which it must have.",
    )
    caption_prompt: SerializeAsAny[BasePromptTemplate] = Field(
        default=DEFAULT_CAPTION_PROMPT, description="Asks for the query picture's caption; no variables."
    )
    reason_prompt: SerializeAsAny[BasePromptTemplate] = Field(
        default=DEFAULT_REASON_PROMPT,
        description="The question of a closer look, a template or its text; variables: query, query_str, "
        "query_caption, candidate_texts.",
    )
    save_sheets: Path | None = Field(
        default=None, description="Folder to save every sheet in, to see what the model saw."
    )
    allow_urls: bool | list[str] = Field(
        default=False,
        description="Fetch pictures given as http(s) URLs: True for public addresses, or a list of hosts "
        "('images.example.org', 'localhost:8000'), which may be private.",
    )
    data_root: str | None = Field(
        default=None,
        description="The only folder that picture files are read from, '..' and symbolic links resolved. "
        "Default: any file that the process may read.",
    )

    @field_validator("model", mode="before")
    @classmethod
    def _path_as_name(cls, model: Any) -> Any:
        return os.fspath(model) if isinstance(model, os.PathLike) else model

    @field_validator("allow_urls", mode="before")
    @classmethod
    def _check_allow_urls(cls, allow_urls: Any) -> Any:
        return check_allow_urls(allow_urls)

    @field_validator(*PROMPTS, mode="before")
    @classmethod
    def _text_as_prompt(cls, prompt: Any) -> Any:
        return PromptTemplate(prompt) if isinstance(prompt, str) else prompt

    @field_validator(*PROMPTS)
    @classmethod
    def _usable_prompt(cls, prompt: BasePromptTemplate, info: ValidationInfo) -> BasePromptTemplate:
        PROMPTS[str(info.field_name)](prompt)
        return prompt

    @field_serializer(*PROMPTS)
    def _prompt_as_text(self, prompt: BasePromptTemplate) -> Any:
        if not isinstance(prompt, PromptTemplate):
            return prompt.model_dump()
        # With our names for its variables, and with what it holds of others filled in.
        names: dict[str, Any] = {name: f"{{{name}}}" for name in RANK_VARIABLES}
        return prompt.format(**names)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.stride is not None and self.stride >= self.window:
            raise ValueError(
                f"stride must be smaller than window={self.window}, got {self.stride}: windows that do not "
                "overlap cannot carry the best to the top"
            )
        if not isinstance(self.model, str):
            for name in ("device", "dtype"):
                if (value := getattr(self, name)) is not None:
                    raise ValueError(f"{name}={value!r} is for models given by name; set it on the model")
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        before = self.__dict__.get(name)
        try:
            super().__setattr__(name, value)
        except ValueError:  # of checks that look at several fields, which come after the change
            if name in type(self).model_fields:
                self.__dict__[name] = before
            raise

    @property
    def _access(self) -> ImageAccess:
        return ImageAccess(self.allow_urls, self.data_root)

    def _options(self, model_num_crops: int | None, *, looks_closer: bool) -> RerankOptions:
        """Return what the algorithm is to do.

        Args:
            model_num_crops: tiles that the model itself is set to, if it says so.
            looks_closer: whether it was taught to explain by closer looks.

        Raises:
            ValueError: ``num_crops`` is another number than the model's.
        """
        if None not in (self.num_crops, model_num_crops) and self.num_crops != model_num_crops:
            raise ValueError(
                f"num_crops={self.num_crops}, but the model was made with num_crops={model_num_crops}"
            )
        options = {field.name: getattr(self, field.name) for field in fields(RerankOptions)}
        options["stride"] = self.stride or max(1, self.window // 2)
        options["num_crops"] = self.num_crops or model_num_crops or DEFAULT_NUM_CROPS
        if self.explain is None:
            options["explain"] = "closer_look" if looks_closer else True
        return RerankOptions(**options)

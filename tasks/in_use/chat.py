"""A chat in the terminal: a question a line, and the model's reply as it comes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import NightStopped
from tasks.pages.text import plural

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from model.config.sampling import Sampling
    from model.network.transformer import Transformer
    from model.tokens.chat import Turn

NEW_TOKENS = 256
"""Of a reply at most, where nobody says otherwise; half of what the model holds if that is less."""
PROMPT = "you> "
Piece = Callable[[str], None]
"""Shows some text."""


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """How replies are made; None stands for the default of `Sampling`."""

    system: str = ""
    """The system turn; empty for none."""
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int = 0
    forget: bool = False
    """Whether each question is asked by itself, without those before."""


class Conversation:
    """The turns so far and the model that goes on with them.

    What is typed is text: markers of special tokens in it are encoded as the letters that they are. Raises NightStopped
    for options that cannot be.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, options: ChatOptions) -> None:
        self.model, self.tokenizer, self.options = model, tokenizer, options
        self.sampling = sampling_of(options, model.config.max_position_embeddings)
        self.system: list[Turn] = [("system", options.system)] if options.system else []
        self.turns: list[Turn] = []
        self._replies = 0

    @property
    def room(self) -> int:
        """Tokens that the model reads at most before a reply."""
        return self.model.config.max_position_embeddings - self.sampling.max_new_tokens

    def ask(self, question: str, note: Piece) -> Iterator[str]:
        """The reply as it comes. Earlier turns that do not fit are left out, oldest first, and `note` is told.

        Raises NightStopped for a question that does not fit by itself, which is then forgotten.
        """
        from model.generation.generate import reply_pieces

        asked: Turn = ("user", question)
        earlier = [] if self.options.forget else self.turns
        left_out = 0
        while (size := self.size([*earlier, asked])) > self.room and earlier:
            earlier, left_out = earlier[2:], left_out + 2
        if size > self.room:
            raise NightStopped(
                f"the question has {size:,} tokens with what goes around it, and the model reads {self.room:,} before "
                f"a reply of {self.sampling.max_new_tokens:,}; ask a shorter one"
            )
        if left_out:
            note(f"the oldest {plural(left_out, 'turn')} do not fit any more and are forgotten")
        sampling = replace(self.sampling, seed=self.options.seed + self._replies)
        said = ""
        for piece in reply_pieces(self.model, self.tokenizer, [*self.system, *earlier, asked], sampling):
            said += piece
            yield piece
        self._replies += 1
        self.turns = [*earlier, asked, ("assistant", said)]

    def size(self, turns: list[Turn]) -> int:
        from model.tokens.chat import render_prompt

        return len(render_prompt(self.tokenizer, [*self.system, *turns]))


def sampling_of(options: ChatOptions, most_tokens: int) -> Sampling:
    """Raises NightStopped for values that cannot be."""
    from model.config.sampling import Sampling

    wanted = min(NEW_TOKENS, most_tokens // 2) if options.max_new_tokens is None else options.max_new_tokens
    if wanted >= most_tokens:
        raise NightStopped(f"--max-tokens is {wanted:,}, and the model holds {most_tokens:,} in all; ask for fewer")
    try:
        default = Sampling(max_new_tokens=wanted, seed=options.seed)
        return replace(
            default,
            temperature=default.temperature if options.temperature is None else options.temperature,
            top_p=default.top_p if options.top_p is None else options.top_p,
        )
    except ValueError as error:
        raise NightStopped(str(error)) from error


def chat(name: str, folder: Path, options: ChatOptions) -> None:
    """Read questions from standard input until it ends, and print the replies.

    name: of the model, shown to a person at a terminal. Questions from a pipe are a line each, replies alone go to
    standard output, notes to standard error. Raises KeyboardInterrupt after Ctrl-C, and NightStopped at the end of the
    pipe if a question could not be asked.
    """
    from tasks.evaluation.scores import load_model

    at_terminal = sys.stdin.isatty()
    if at_terminal:
        print(f"Loading {name}; Ctrl-D or Ctrl-C ends the chat.", file=sys.stderr, flush=True)
    try:
        conversation = Conversation(*load_model(folder, folder), options)
        answered = [answer(conversation, question) for question in (typed_lines() if at_terminal else piped_lines())]
    except KeyboardInterrupt:
        print()
        raise
    if not (at_terminal or all(answered)):
        count = plural(answered.count(False), "question")
        raise NightStopped(f"{count} of {len(answered):,} could not be asked; each has an empty line as its reply")


def answer(conversation: Conversation, question: str) -> bool:
    """Print one reply; a question that cannot be asked is a line on standard error, and the chat goes on.

    Returns whether it could be asked.
    """
    asked = True
    try:
        for piece in conversation.ask(question, note=tell):
            print(piece, end="", flush=True)
    except NightStopped as refused:
        tell(str(refused))
        asked = False
    print(flush=True)
    return asked


def tell(note: str) -> None:
    print(f"({note})", file=sys.stderr, flush=True)


def typed_lines() -> Iterator[str]:
    """What a person types, with the editing of readline where Python has it."""
    with suppress(ImportError):
        import readline  # noqa: F401  `input` uses it once it is imported
    while True:
        try:
            line = input(PROMPT)
        except EOFError:
            print()
            return
        if line.strip():
            yield line


def piped_lines() -> Iterator[str]:
    for line in sys.stdin.buffer:
        if question := line.decode("utf-8", errors="replace").strip():
            yield question

"""Commands that use a registered model: a chat in the terminal, and a server."""

from __future__ import annotations

import argparse

from flows.commands.nights import add_recipe_with_model

ENGINES = ("mlflow", "transformers", "vllm")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_with_model(parser)
    parser.add_argument("--version", type=int, metavar="N", help="a version of its model; the champion if left out")


def add_chat_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--system", default="", metavar="TEXT", help="a system prompt; none if left out")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="of a reply at most; 256 if the model has room")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 always takes the best token; 0.6 if left out")
    parser.add_argument("--top-p", type=float, metavar="P", help="draw from the likeliest tokens of this share; 0.9")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed, the same replies; %(default)s")
    parser.add_argument("--forget", action="store_true", help="ask each question by itself, without those before")


def chat(arguments: argparse.Namespace) -> int:
    """Talk with a model in the terminal, or have it answer the lines of standard input."""
    from tasks.in_use.chat import ChatOptions, chat
    from tasks.in_use.version import usable_model  # MLflow takes seconds to import

    model = usable_model(arguments.recipe, arguments.version)
    options = ChatOptions(
        system=arguments.system, max_new_tokens=arguments.max_tokens, temperature=arguments.temperature,
        top_p=arguments.top_p, seed=arguments.seed, forget=arguments.forget,
    )  # fmt: skip
    chat(str(model), model.folder, options)
    return 0


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--engine", choices=ENGINES, default="mlflow", help="whose server it is; %(default)s")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; %(default)s, this machine alone")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="port to listen on; %(default)s")


def serve(arguments: argparse.Namespace) -> int:
    """Become a server of an engine's own on a model."""
    from tasks.in_use.engines import serve
    from tasks.in_use.version import usable_model

    serve(usable_model(arguments.recipe, arguments.version), arguments.engine, arguments.host, arguments.port)
    return 0


def add_registry_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_with_model(parser)
    parser.add_argument("--all", action="store_true", help="list everything that was decided, not the newest alone")


def registry(arguments: argparse.Namespace) -> int:
    """Print who moved the champion alias, when, why and on what evidence, and what was decided of other versions."""
    from tasks.in_use.audit import audit_lines  # MLflow takes seconds to import

    for line in audit_lines(arguments.recipe, arguments.all):
        print(line)
    return 0

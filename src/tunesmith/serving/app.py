"""The addresses of a server, and what each answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ..model.engine import Ids
from ..model.sight import Looked
from . import judged, texts
from .answers import Answers, Asking, dialogue, prompts_of, rendering, turn
from .door import Door
from .events import Events, json_response, watched
from .fault import Fault, bad, broken
from .judged import Keep, keeper
from .loop import AT_ONCE, BETWEEN, Loop, deliver
from .models import Models, Served
from .openapi import document
from .pictures import laid_out, pictures
from .pieces import Chances, Pieces, Vectors
from .settings import Serving
from .shapes import Before, chat_logprobs, chunk, head, text_logprobs, whole_chat, whole_text
from .shelf import Shelf
from .speech import Speech
from .store import Store
from .visit import Desk, Visit, visiting
from .wire import Chat, Completion, Embedding, Score, parsed
from .wire import Said as Feedback

Chunks = AsyncIterator[dict[str, Any]]


class Site:
    """One server's answers."""

    def __init__(self, settings: Serving, models: Models, loop: Loop, store: Store | None) -> None:
        self.settings, self.models, self.loop, self.store = settings, models, loop, store
        self.asking = Asking(settings, loop, models.length(), len(models.tokenizer))
        self.desk, self.shelf = Desk(), Shelf(models, loop)

    def app(self, key: str) -> Door:
        """The application, behind its door."""
        gets = {
            "/health": self.health,
            "/metrics": self.metrics,
            "/openapi.json": self.openapi,
            "/v1/models": self.names,
            "/v1/models/{id:path}": self.one,
        }
        routes = [Route(path, self.safely(work), methods=["POST"]) for path, work in self.posts().items()]
        routes += [Route(path, self.safely(work), methods=["GET"]) for path, work in gets.items()]
        made = Starlette(routes=routes, exception_handlers={HTTPException: not_there}, lifespan=self.attached)
        return Door(made, self.settings, key)

    def posts(self) -> dict[str, Callable[[Request], Any]]:
        """What takes a body, by its address."""
        return {
            "/v1/chat/completions": self.chat, "/v1/completions": self.complete, "/v1/embeddings": self.embed,
            "/v1/score": self.score, "/v1/load_lora_adapter": self.load, "/v1/unload_lora_adapter": self.unload,
            "/v1/feedback": self.feedback,
        }  # fmt: skip

    @asynccontextmanager
    async def attached(self, _: Any) -> AsyncIterator[None]:
        """Within it what the model says comes into this event loop, all of a pass at once."""
        events = asyncio.get_running_loop()

        def post(out: list[Any]) -> None:
            with suppress(RuntimeError):  # the loop of events has ended, and nobody hears
                events.call_soon_threadsafe(deliver, out)

        self.loop.post = post
        yield

    def safely(self, work: Callable[[Request], Any]):
        """An address that answers faults in OpenAI's shape, those that nobody foresaw too."""

        async def answer(request: Request) -> Response:
            try:
                return await work(request)
            except ClientDisconnect:  # nobody is there to be told
                raise
            except Exception as error:  # noqa: BLE001 - who asked is told, and the server goes on
                fault = error if isinstance(error, Fault) else broken(error)
                return json_response(fault.body, fault.status, dict(fault.headers))

        return answer

    # --- what may be asked --------------------------------------------------------------------------------------------

    async def health(self, _: Request) -> Response:
        well = self.loop.is_alive() and not self.loop.draining
        return json_response({"status": "ok" if well else "draining"}, 200 if well else 503)

    async def metrics(self, _: Request) -> Response:
        loop = self.loop
        text = loop.metrics.text(loop.busy(), loop.coming + len(loop.waiting), len(self.models.served), loop.held())
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def openapi(self, _: Request) -> Response:
        return json_response(document())

    async def names(self, _: Request) -> Response:
        data = [self.models.entry(served) for served in list(self.models.served.values())]
        return json_response({"object": "list", "data": data})

    async def one(self, request: Request) -> Response:
        return json_response(self.models.entry(self.models.find(request.path_params["id"])))

    # --- writing ------------------------------------------------------------------------------------------------------

    def writer(self, name: str) -> Served:
        served = self.models.find(name)
        if served.tuned:
            raise bad(f"the model '{name}' scores texts and writes none; ask /v1/score", "model")
        return served

    async def chat(self, request: Request) -> Response:
        said = parsed(Chat, await request.body())
        served = self.writer(said.model)
        if said.stream_options and not said.stream:
            raise bad("'stream_options': is for streams; set stream=true", "stream_options")
        if said.top_logprobs is not None and not said.logprobs:
            raise bad("'top_logprobs': needs logprobs=true", "top_logprobs")
        async with self.visit(request) as visit:
            turns, speech, prompt = await self.asked(visit, said, served)
            most = said.max_completion_tokens or said.max_tokens
            logprobs = (said.top_logprobs or 0) if said.logprobs else None
            ask = visit.timed(self.asking.ask(said, served, prompt.ids, most, logprobs))
            ask.seen = prompt.seen
            ask.grammar = await asyncio.to_thread(speech.grammar, self.models.words, self.models.ends)
            answers = Answers(self.loop, [ask])
            asked = {"messages": turns, "tools": said.tools or ()}
            store = None if ask.seen else self.store  # feedback is rows of text, and images would be left out of them
            keep = keeper(self.settings, store, (said, served), [asked] * ask.n, answers)
            answers.begin()
        if said.stream:
            usage = bool(said.stream_options and said.stream_options.include_usage)
            return Events(request, answers, self.chat_chunks(said, answers, speech, keep), usage)
        await self.wait(request, answers)
        spoken = [speech.message(text, answers.finish[n]) for n, text in enumerate(answers.texts)]
        await keep(spoken)
        return json_response(whole_chat(answers, said.model, spoken, bool(said.logprobs)))

    async def asked(self, visit: Visit, said: Chat, served: Served) -> tuple[list[dict[str, Any]], Speech, Looked]:
        """The turns of a dialogue without its images, what is wanted of answers, and what the model is given.

        Raises Fault.
        """
        sight, tokenizer = self.models.sight, self.models.tokenizer
        if sight is None:

            def written() -> tuple[list[dict[str, Any]], Speech, Looked]:
                renderer = rendering(said, served)
                speech = Speech(said, renderer, tokenizer)
                turns = [turn(one, n) for n, one in enumerate(said.messages)]
                return turns, speech, Looked(renderer.prompt(dialogue(turns, speech.tools), speech.shown))

            return await self.desk.encode(visit, written, "messages")
        turns, parts, addresses = laid_out(said.messages, self.settings)
        images = await visit.within(pictures(addresses, self.settings))

        def looked() -> tuple[list[dict[str, Any]], Speech, Looked]:
            renderer = rendering(said, served)
            speech = Speech(said, renderer, tokenizer)
            told = zip(renderer.told(dialogue(turns, speech.tools)), parts, strict=True)
            laid = [{**renderer.writer.turn(one), "content": part} for one, part in told]
            return turns, speech, sight.prompt(laid, speech.shown, images, said.chat_template_kwargs)

        return await self.desk.encode(visit, looked, "messages")

    async def complete(self, request: Request) -> Response:
        said = parsed(Completion, await request.body())
        served = self.writer(said.model)
        prompts = prompts_of(said)
        if len(prompts) > self.settings.queue + 1:
            raise bad(f"'prompt': at most {self.settings.queue + 1} at once here (got {len(prompts)})", "prompt")
        most = 16 if said.max_tokens is None else said.max_tokens
        async with self.visit(request, len(prompts)) as visit:
            found = [await self.begun(visit, served, prompt, "prompt") for prompt in prompts]
            asks = [visit.timed(self.asking.ask(said, served, ids, most, said.logprobs)) for ids, _ in found]
            answers = Answers(self.loop, asks)
            before = await self.before(visit, said, served, found)
            shown = [{"prompt": text} for ask, (_, text) in zip(asks, found, strict=True) for _ in range(ask.n)]
            keep = keeper(self.settings, self.store if most else None, (said, served), shown, answers)
            answers.begin()
        if said.stream:
            usage = bool(said.stream_options and said.stream_options.include_usage)
            return Events(request, answers, self.text_chunks(said, answers, before, keep), usage)
        await self.wait(request, answers)
        await keep([({"content": text}, None) for text in answers.texts])
        return json_response(whole_text(answers, said.model, before, said.logprobs is not None))

    async def before(
        self, visit: Visit, said: Completion, served: Served, found: Sequence[tuple[Ids, str]]
    ) -> list[Before]:
        """What stands before each answer."""
        made = [Before()] * len(found)
        if said.echo:
            made = [Before(text) for _, text in found]
        if said.echo and said.logprobs is not None:
            chances = Chances([ids for ids, _ in found], said.logprobs)
            await self.read(visit, served, chances)
            made = [Before(one.text, tuple(likely)) for one, likely in zip(made, chances.made, strict=True)]
        return [one for one in made for _ in range(said.n or 1)]

    async def begun(self, visit: Visit, served: Served, prompt: str | Ids, where: str) -> tuple[Ids, str]:
        """The tokens of a text, or those that are given, and the text."""
        if isinstance(prompt, str):
            return await self.desk.encode(visit, lambda: served.renderer.text_begun(prompt), where, prompt), prompt
        if any(token >= self.asking.words for token in prompt):
            raise bad(f"'{where}': holds a number that is no token of this model", where)
        tokenizer: Any = served.renderer.tokenizer
        return prompt, await self.desk.encode(visit, lambda: str(tokenizer.decode(prompt)), where)

    async def wait(self, request: Request, answers: Answers) -> None:
        """Until all is written, or the client has left."""
        watch = asyncio.create_task(watched(request, answers))
        try:
            async for _ in answers.pieces():
                pass
        finally:
            watch.cancel()

    async def chat_chunks(self, said: Chat, answers: Answers, speech: Speech, keep: Keep) -> Chunks:
        start = head(answers, "chat.completion.chunk", said.model)
        told = bool(said.logprobs)
        spoken = [speech.begin() for _ in answers.texts]
        for n in range(len(answers.texts)):
            yield chunk(start, n, None, delta={"role": "assistant", "content": ""}, logprobs=None)
        async for n, piece in answers.pieces():
            likely = chat_logprobs(piece.likely) if told and piece.likely else None
            deltas = spoken[n].deltas(piece.text, piece.finish is not None)
            for at, delta in enumerate(deltas or ([{"content": ""}] if likely else [])):
                yield chunk(start, n, None, delta=delta, logprobs=likely if at == 0 else None)
            if piece.finish:
                yield chunk(start, n, spoken[n].finish(piece.finish), delta={}, logprobs=None)
        await keep([speech.message(text, answers.finish[n]) for n, text in enumerate(answers.texts)])

    async def text_chunks(self, said: Completion, answers: Answers, before: list[Before], keep: Keep) -> Chunks:
        start = head(answers, "text_completion", said.model)
        told, sent = said.logprobs is not None, [sum(len(token.token) for token in one.likely) for one in before]
        for n, one in enumerate(before):
            if one.text or answers.finish[n]:
                likely = text_logprobs(one.likely) if one.likely else None
                yield chunk(start, n, answers.finish[n], text=one.text, logprobs=likely)
        async for n, piece in answers.pieces():
            yield chunk(
                start, n, piece.finish, text=piece.text, logprobs=text_logprobs(piece.likely, sent[n]) if told else None
            )
            sent[n] += len(piece.text)
        await keep([({"content": text}, None) for text in answers.texts])

    # --- reading ------------------------------------------------------------------------------------------------------

    def visit(self, request: Request, count: int = 1) -> AbstractAsyncContextManager[Visit]:
        """Let a request in. Raises Fault where too many wait."""
        return visiting(request, self.loop, count)

    async def read(self, visit: Visit, served: Served, pieces: Pieces) -> None:
        """Have texts read, each piece when others have had a token."""

        def go_on() -> bool:
            most = BETWEEN if self.loop.busy() else AT_ONCE
            return pieces.go_on(self.models.lane(served.adapter), served.adapter, most)

        while not await visit.done(go_on):
            pass

    async def embed(self, request: Request) -> Response:
        said = parsed(Embedding, await request.body())
        served = self.writer(said.model)
        async with self.visit(request) as visit:
            prompts = [(await self.begun(visit, served, one, "input"))[0] for one in texts.inputs(said)]
            if any(not 0 < len(ids) <= self.asking.length for ids in prompts):
                why = f"'input': each must have 1 to {self.asking.length} tokens"
                raise bad(why, "input", "context_length_exceeded")
            vectors = Vectors(prompts)
            await self.read(visit, served, vectors)
        return json_response(texts.embeddings(said, vectors.made, sum(map(len, prompts))))

    async def score(self, request: Request) -> Response:
        said = parsed(Score, await request.body())
        jobs, data = texts.scoring(said, self.models.find(said.model)), []
        async with self.visit(request) as visit:
            for work in jobs:
                data += await visit.done(work)
        return json_response({"object": "list", "data": data, "model": said.model})

    # --- adapters -----------------------------------------------------------------------------------------------------

    async def load(self, request: Request) -> Response:
        return PlainTextResponse(await self.shelf.load(request))

    async def unload(self, request: Request) -> Response:
        return PlainTextResponse(await self.shelf.unload(request))

    # --- feedback -----------------------------------------------------------------------------------------------------

    async def feedback(self, request: Request) -> Response:
        said = parsed(Feedback, await request.body())
        if self.store is None:
            raise Fault(403, "nothing is kept here; start the server with feedback=FILE.sqlite", code="feedback_off")
        store = self.store
        return json_response(await asyncio.to_thread(judged.keep, store, said))


async def not_there(_: Request, error: Any) -> Response:
    what = {404: "there is no such address", 405: "this address is not asked that way"}
    fault = Fault(error.status_code, what.get(error.status_code, str(error.detail)), code="not_found")
    return json_response(fault.body, error.status_code, dict(error.headers or {}))

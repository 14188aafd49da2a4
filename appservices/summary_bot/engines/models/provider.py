"""One provider: a call to its chat API by the `openai` package, whole or streamed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from appservices.summary_bot.config import Provider
from appservices.summary_bot.engines.models.tokens import estimate_tokens

MAX_ANSWER_CHARACTERS = 200_000
RETRIED_STATUSES = frozenset({408, 429})

OnText = Callable[[str], None]
"""Is given all text that has come so far."""


class ProviderFailed(Exception):
    """A call failed. `is_temporary`: another try may help. Never has contents in it."""

    def __init__(self, what: str, *, is_temporary: bool) -> None:
        super().__init__(what)
        self.is_temporary = is_temporary


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked. `data` is JSON; `schema` is what the answer has to look like."""

    instructions: str
    data: str
    schema_name: str
    schema: Mapping[str, Any]
    max_output_tokens: int

    @property
    def tokens(self) -> int:
        """An estimate of what it takes at most, its answer included."""
        schema = msgspec.json.encode(self.schema).decode()
        return estimate_tokens(self.instructions + self.data + schema) + self.max_output_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered, and what that took."""

    text: str
    input_tokens: int
    output_tokens: int


class ChatProvider:
    """Calls one provider. The package is loaded with the first call."""

    def __init__(self, options: Provider) -> None:
        self.options = options
        self._client: Any = None

    def _load_client(self) -> Any:
        if self._client is None:
            import openai

            key = self.options.api_key
            self._client = openai.AsyncOpenAI(
                base_url=self.options.base_url,
                api_key=key.reveal() if key is not None else "none",
                max_retries=0,
                default_headers=self.options.headers or None,
            )
        return self._client

    async def complete(self, prompt: Prompt, on_text: OnText | None = None) -> Reply:
        """One try. Raises ProviderFailed."""
        client = self._load_client()
        import openai

        try:
            async with asyncio.timeout(self.options.try_timeout_ms / 1000):
                if on_text is not None and self.options.stream:
                    return await self._stream(client, prompt, on_text)
                answer = await client.chat.completions.create(**self._request(prompt))
                text = answer.choices[0].message.content if answer.choices else None
                return self._reply(prompt, text or "", answer.usage)
        except openai.APIStatusError as error:
            status = error.status_code
            is_temporary = status in RETRIED_STATUSES or status >= 500
            raise ProviderFailed(f"status {status}", is_temporary=is_temporary) from None
        except TimeoutError:
            raise ProviderFailed("timeout", is_temporary=True) from None
        except openai.APIConnectionError:
            raise ProviderFailed("no connection", is_temporary=True) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, IndexError) as error:
            # An address that answers 200 with something that is not the API fails in the package's own parsing.
            raise ProviderFailed(f"not the API ({type(error).__name__})", is_temporary=False) from None

    async def transcribe(self, name: str, audio: bytes) -> str:
        """The words of a recording. Raises ProviderFailed."""
        client = self._load_client()
        import openai

        try:
            async with asyncio.timeout(self.options.try_timeout_ms / 1000):
                answer = await client.audio.transcriptions.create(
                    model=self.options.transcription_model, file=(name, audio)
                )
            return str(answer.text)[:MAX_ANSWER_CHARACTERS]
        except TimeoutError:
            raise ProviderFailed("timeout", is_temporary=True) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
            raise ProviderFailed(type(error).__name__, is_temporary=False) from None

    def _request(self, prompt: Prompt) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.options.model.name,
            "messages": [
                {"role": "system", "content": prompt.instructions},
                {"role": "user", "content": prompt.data},
            ],
            "temperature": 0,
            "max_tokens": prompt.max_output_tokens,
        }
        if self.options.structured == "json_schema":
            schema = {"name": prompt.schema_name, "strict": True, "schema": prompt.schema}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self.options.structured == "json_object":
            request["response_format"] = {"type": "json_object"}
        return request

    async def _stream(self, client: Any, prompt: Prompt, on_text: OnText) -> Reply:
        text, usage = "", None
        stream = await client.chat.completions.create(
            **self._request(prompt), stream=True, stream_options={"include_usage": True}
        )
        async with stream:
            async for piece in stream:
                usage = piece.usage or usage
                if piece.choices and piece.choices[0].delta.content:
                    text += piece.choices[0].delta.content
                    if len(text) > MAX_ANSWER_CHARACTERS:
                        break
                    on_text(text)
        return self._reply(prompt, text, usage)

    def _reply(self, prompt: Prompt, text: str, usage: Any) -> Reply:
        text = text[:MAX_ANSWER_CHARACTERS]
        counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
        estimates = (prompt.tokens - prompt.max_output_tokens, estimate_tokens(text))
        used = [
            count if type(count) is int and 0 <= count < 2**31 else estimate
            for count, estimate in zip(counts, estimates, strict=True)
        ]
        return Reply(text, *used)

    async def close(self) -> None:
        """Ends its connections."""
        if self._client is not None:
            await self._client.close()

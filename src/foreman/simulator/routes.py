"""Every URL that the simulator answers (contract 1.2)."""

from __future__ import annotations

from foreman.simulator import anthropic, embedding, metadata, native, openai, responses
from foreman.simulator.router import Route

ROUTES = (
    Route("HEAD", "/", metadata.root),
    Route("GET", "/", metadata.root),
    Route("HEAD", "/api/version", metadata.version),
    Route("GET", "/api/version", metadata.version),
    Route("GET", "/api/status", metadata.status),
    Route("HEAD", "/api/tags", metadata.tags),
    Route("GET", "/api/tags", metadata.tags),
    Route("GET", "/api/ps", metadata.ps),
    Route("POST", "/api/show", metadata.show, "whole"),
    Route("POST", "/api/chat", native.chat, "whole"),
    Route("POST", "/api/generate", native.generate, "whole"),
    Route("POST", "/api/embed", embedding.embed, "whole"),
    Route("POST", "/api/embeddings", embedding.embeddings, "whole"),
    Route("POST", "/v1/chat/completions", openai.chat, "whole", "openai"),
    Route("POST", "/v1/completions", openai.completions, "whole", "openai"),
    Route("POST", "/v1/embeddings", embedding.openai_embeddings, "whole", "openai"),
    Route("POST", "/v1/responses", responses.respond, "whole", "openai"),
    Route("POST", "/v1/messages", anthropic.messages, "whole", "anthropic"),
    Route("GET", "/v1/models", metadata.openai_models, family="openai"),
    Route("GET", "/v1/models/:model", metadata.openai_model, family="openai"),
)

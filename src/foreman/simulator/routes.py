"""Every URL that the simulator answers (contract 1.2)."""

from __future__ import annotations

from foreman.simulator import admin, anthropic, embedding, metadata, native, openai, responses
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
    Route("POST", "/api/chat", native.chat, "whole", asks_a_model=True),
    Route("POST", "/api/generate", native.generate, "whole", asks_a_model=True),
    Route("POST", "/api/embed", embedding.embed, "whole", asks_a_model=True),
    Route("POST", "/api/embeddings", embedding.embeddings, "whole", asks_a_model=True),
    Route("POST", "/v1/chat/completions", openai.chat, "whole", "openai", asks_a_model=True),
    Route("POST", "/v1/completions", openai.completions, "whole", "openai", asks_a_model=True),
    Route("POST", "/v1/embeddings", embedding.openai_embeddings, "whole", "openai", asks_a_model=True),
    Route("POST", "/v1/responses", responses.respond, "whole", "openai", asks_a_model=True),
    Route("POST", "/v1/messages", anthropic.messages, "whole", "anthropic", asks_a_model=True),
    Route("GET", "/v1/models", metadata.openai_models, family="openai"),
    Route("GET", "/v1/models/:model", metadata.openai_model, family="openai"),
    Route("GET", "/simulator", admin.state),
    Route("GET", "/simulator/misbehave", admin.planned),
    Route("POST", "/simulator/misbehave", admin.plan, "whole"),
    Route("DELETE", "/simulator/misbehave", admin.forget),
    Route("POST", "/simulator/crash", admin.crash),
)

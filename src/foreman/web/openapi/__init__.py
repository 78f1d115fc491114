"""What foreman's own routes take and answer, as OpenAPI 3.1: schemas and routes as data, and a page made of them."""

// Asks with every client package for Node, in each of its ways, and says in one line of JSON what each got:
// {"name": {"text": …}} or {"name": {"error": …}}. Called as: node clients.mjs PACKAGES URL MODEL TEXT
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, url, model, text] = process.argv.slice(2);
// The packages are not beside this file, so that an import by their names would not find them.
const { resolve } = createRequire(`${folder}/`);
const load = (name) => import(pathToFileURL(resolve(name)));
const { Ollama } = await load("ollama");
const { default: OpenAI } = await load("openai");

const messages = [{ role: "user", content: text }];
const ollama = new Ollama({ host: url });
// Another try would hide the failure of the first.
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "ollama", maxRetries: 0 });

async function joined(parts, piece) {
  let said = "";
  for await (const part of parts) said += piece(part) ?? "";
  return said;
}

const ways = {
  "ollama, whole": async () => (await ollama.chat({ model, messages })).message.content,
  "ollama, streamed": async () =>
    joined(await ollama.chat({ model, messages, stream: true }), (part) => part.message.content),
  "openai, whole": async () =>
    (await openai.chat.completions.create({ model, messages })).choices[0].message.content,
  "openai, streamed": async () =>
    joined(
      await openai.chat.completions.create({ model, messages, stream: true }),
      (part) => part.choices[0]?.delta.content,
    ),
  "openai-responses, whole": async () => (await openai.responses.create({ model, input: text })).output_text,
  "openai-responses, streamed": async () =>
    joined(await openai.responses.create({ model, input: text, stream: true }), (event) =>
      event.type === "response.output_text.delta" ? event.delta : "",
    ),
};

const outcomes = await Promise.all(
  Object.entries(ways).map(async ([name, ask]) => {
    try {
      return [name, { text: await ask() }];
    } catch (error) {
      return [name, { error: `${error}` }];
    }
  }),
);
console.log(JSON.stringify(Object.fromEntries(outcomes)));

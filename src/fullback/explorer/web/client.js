// Requests to the server: the token in a header, errors as exceptions with the server's reason.

export class Client {
  constructor(token) {
    this.token = token;
    this.session = null;
  }

  get headers() {
    return { "X-Fullback-Token": this.token };
  }

  // The answer to a request that is not a session's.
  async ask(method, path, body, { signal } = {}) {
    const options = { method, headers: this.headers, signal, cache: "no-store" };
    if (body instanceof Blob) {
      options.body = body;
    } else if (body !== undefined) {
      options.body = JSON.stringify(body);
      options.headers["Content-Type"] = "application/json";
    }
    let answer;
    try {
      answer = await fetch(path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Failure("the server does not answer; is fullback explore still running?", 0);
    }
    if (!answer.ok) throw new Failure(await reason(answer), answer.status);
    return answer;
  }

  get path() {
    return `api/sessions/${this.session}`;
  }

  async get(path, query = {}) {
    const words = new URLSearchParams(query).toString();
    return (await this.ask("GET", `${this.path}${path}${words ? `?${words}` : ""}`)).json();
  }

  async post(path, body = {}, options = {}) {
    return (await this.ask("POST", `${this.path}${path}`, body, options)).json();
  }

  // Call `each(row)` for every line of an answer that comes line by line.
  async stream(path, body, signal, each) {
    const answer = await this.ask("POST", `${this.path}${path}`, body, { signal });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const row = JSON.parse(line);
        if (row.error) throw new Failure(row.error, 400);
        each(row);
      }
    }
  }
}

export class Failure extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function reason(answer) {
  try {
    return (await answer.json()).error;
  } catch {
    return `the server answered ${answer.status}`;
  }
}

// Let the latest of many calls through, and those in between fall away: one at a time.
export function latest(work) {
  let running = false;
  let waiting = null;
  return async function call(...given) {
    if (running) {
      waiting = given;
      return;
    }
    running = true;
    try {
      await work(...given);
    } finally {
      running = false;
      const next = waiting;
      waiting = null;
      if (next) call(...next);
    }
  };
}

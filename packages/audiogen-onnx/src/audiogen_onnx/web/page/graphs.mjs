// ONNX graphs by onnxruntime, be it onnxruntime-web in a browser or onnxruntime-node.

const TYPES = new Map([
  [Float32Array, "float32"],
  [BigInt64Array, "int64"],
  [Int32Array, "int32"],
  [Int8Array, "int8"],
  [Uint8Array, "bool"],
]);

/** Whole numbers as onnxruntime takes them for int64. */
export const int64 = (numbers) => BigInt64Array.from(numbers, BigInt);

/** The graphs of one model, each opened when it is asked for first. */
export class Graphs {
  /**
   * ort    onnxruntime's module
   * graphs name -> its files {graph, data}, as a manifest has them; data may be null
   * read   the name of a file -> its bytes, as a promise
   * how    options of a session
   */
  constructor(ort, graphs, read, how) {
    Object.assign(this, { ort, graphs, read, how });
    this.files = new Map();
    this.opened = new Map();
  }

  open(name) {
    if (!this.opened.has(name)) this.opened.set(name, this.session(name));
    return this.opened.get(name);
  }

  async session(name) {
    const { graph, data } = this.graphs[name];
    const bytes = await this.file(graph);
    const beside = data === null ? [] : [{ path: data.file.split("/").at(-1), data: await this.file(data) }];
    const session = await this.ort.InferenceSession.create(bytes, { ...this.how, externalData: beside });
    return new Graph(this.ort, session);
  }

  /** The bytes of a file; step graphs share those of their network. */
  file(stored) {
    if (!this.files.has(stored.file)) this.files.set(stored.file, this.read(stored));
    return this.files.get(stored.file);
  }
}

export class Graph {
  constructor(ort, session) {
    Object.assign(this, { ort, session });
    this.types = new Map((session.inputMetadata ?? []).map(({ name, type }) => [name, type]));
  }

  tensor(array, dims) {
    return new this.ort.Tensor(TYPES.get(array.constructor), array, dims);
  }

  /** inputs: name -> [array, dims], or what another run gave. Returns the outputs as onnxruntime's tensors. */
  run(inputs) {
    const feeds = Object.entries(inputs).map(([name, value]) => [
      name,
      Array.isArray(value) ? this.tensor(...value) : value,
    ]);
    return this.session.run(Object.fromEntries(feeds));
  }
}

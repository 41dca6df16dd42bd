import { constants } from "node:os";
import { Duplex, Readable, Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import {
	type Command,
	type Exit,
	FileRefused,
	type Process,
	type Sandbox,
	type SandboxLost,
} from "./driver.ts";
import {
	chunkBytes,
	encodeFrame,
	frameType,
	guestBytes,
	maxStringsBytes,
	ProtocolBreach,
} from "./guest-frames.ts";
import { type GuestLink, openLink } from "./guest-link.ts";
import { openInlet, openOutlet } from "./guest-streams.ts";

/** The guest agent of one sandbox, as its host sees it: all that `Sandbox` promises except `stop`. */
export interface GuestAgent extends Omit<Sandbox, "isolation" | "stop"> {
	/** Sets the sandbox's clock, in milliseconds since 1970; rejects where it has none of its own */
	setTime(unixMs: number): Promise<void>;
	/** Adds up to 512 bytes of entropy; rejects where the sandbox has no random generator of its own */
	reseed(entropy: Uint8Array): Promise<void>;
	/** SIGTERM to every process inside, SIGKILL after `graceMs`; settles once the agent itself ends, never rejects */
	shutdown(options: { graceMs: number }): Promise<void>;
	ping(): Promise<void>;
}

/** The guest agent would not do something that is no matter of files; the message says why. */
export class GuestRefused extends Error {
	override name = "GuestRefused";
}

/**
 * Speaks to a guest agent over `stream`, which it owns from now on. Whatever comes from there is hostile: the first
 * answer that breaks guest/PROTOCOL.md ends the connection, `gone` names the breach, and all that is pending rejects
 * with SandboxLost. Requests are sent in the order of the calls, so an `exec` right after a `put` of at most 256 KiB
 * finds the file even if that was not awaited.
 */
export function connectGuest(stream: Duplex): GuestAgent {
	const link = openLink(stream);
	return {
		gone: link.gone,
		exec: (command) => exec(link, command),
		put: (path, content, options) => put(link, path, content, options),
		get: (path, options) => get(link, path, options),
		connect: (port) => connect(link, port),
		setTime: (unixMs) => {
			const seconds = Math.floor(unixMs / 1000);
			return ask(
				link,
				"setTime",
				frameType.time,
				[8, seconds],
				[4, Math.floor((unixMs - seconds * 1000) * 1e6)],
			);
		},
		reseed: async (entropy) => {
			if (entropy.length > 512)
				throw new RangeError("Entropy is taken in pieces of at most 512 bytes");
			await ask(link, "reseed", frameType.reseed, entropy);
		},
		ping: () => ask(link, "ping", frameType.ping),
		shutdown: async ({ graceMs }) => {
			// Whether it says so first or the connection simply ends: it is over either way.
			await ask(link, "shutdown", frameType.shutdown, [4, graceMs]).catch(
				() => undefined,
			);
			link.close("it was shut down");
		},
	};
}

function ask(
	link: GuestLink,
	name: string,
	type: number,
	...fields: Parameters<typeof encodeFrame>[2][]
) {
	return new Promise<void>((resolve, reject) => {
		const id = link.open({
			name,
			done: resolve,
			error: (_, text) =>
				reject(new GuestRefused(`The guest agent refused ${name}: ${text}`)),
			lost: reject,
		});
		link.send(encodeFrame(type, id, ...fields));
	});
}

const signalNames = new Map(
	Object.entries(constants.signals).map(([name, number]) => [number, name]),
);

function exec(link: GuestLink, command: Command): Process {
	const strings = execStrings(command);
	const { promise: exit, resolve, reject } = Promise.withResolvers<Exit>();
	// Not everybody waits for the end; a lost sandbox must not end the worker too.
	exit.catch(() => undefined);
	const id = link.open({
		name: "exec",
		data: (which, bytes) => outlet(which).data(bytes),
		end: (which) => outlet(which).end(),
		credit: (bytes) => inlet.credit(bytes),
		exit: (how) => {
			if (!out.ended || !(err.ended || command.pty))
				throw new ProtocolBreach("an exit before the end of the output");
			inlet.finish();
			if ("exitCode" in how) return resolve(how);
			resolve({
				signal: signalNames.get(how.signalNumber) ?? `SIG${how.signalNumber}`,
			});
		},
		error: (_, text) =>
			fail(
				new GuestRefused(
					`The guest agent could not start ${command.argv[0]}: ${text}`,
				),
			),
		lost: (error) => fail(error),
	});
	const inlet = openInlet(link, id);
	const out = openOutlet(link, id, 1, () => stdout);
	const err = openOutlet(link, id, 2, () => stderr);
	const stdout = readable(out);
	const stderr = readable(err);
	const stdin = new Writable({
		write: (chunk: Buffer, _, callback) => inlet.write(chunk, callback),
		final: (callback) => {
			inlet.end();
			callback();
		},
	});
	if (command.pty) stderr.push(null);
	if (!command.stdin) inlet.finish();

	function outlet(which: number) {
		if (which === 1) return out;
		if (which === 2 && !command.pty) return err;
		throw new ProtocolBreach(`output on stream ${which} of exec`);
	}
	function fail(error: Error) {
		inlet.finish();
		stdout.destroy(error);
		stderr.destroy(error);
		reject(error);
	}

	sendExec(link, id, command, strings);
	return {
		stdin,
		stdout,
		stderr,
		exit,
		kill: (signal) => {
			if (link.isOpen(id))
				link.send(
					encodeFrame(frameType.signal, id, [1, constants.signals[signal]]),
				);
		},
		resize: ({ rows, cols }) => {
			if (link.isOpen(id))
				link.send(encodeFrame(frameType.resize, id, [2, rows], [2, cols]));
		},
	};
}

// Working directory, arguments, environment, each ended by NUL.
function execStrings({ argv, env, cwd }: Command): Buffer {
	if (argv.length === 0)
		throw new TypeError("A command needs at least the name of its program");
	const nul = Buffer.of(0);
	const strings = Buffer.concat([
		...[guestBytes(cwd, "The working directory"), nul],
		...argv.flatMap((argument) => [guestBytes(argument, "An argument"), nul]),
		...Object.entries(env).flatMap(([name, value]) => [
			guestBytes(`${name}=${value}`, `The variable ${name}`),
			nul,
		]),
	]);
	if (strings.length > maxStringsBytes)
		throw new RangeError("Arguments and environment are larger than 8 MB");
	return strings;
}

function sendExec(
	link: GuestLink,
	id: number,
	{ argv, env, pty, stdin }: Command,
	strings: Buffer,
) {
	let at = 0;
	for (; strings.length - at > chunkBytes; at += chunkBytes) {
		link.send(
			encodeFrame(
				frameType.execPart,
				id,
				strings.subarray(at, at + chunkBytes),
			),
		);
	}
	const flags = (pty ? 1 : 0) | (stdin ? 2 : 0);
	const counts = [
		[4, argv.length] as const,
		[4, Object.keys(env).length] as const,
	];
	const size = [[2, pty?.rows ?? 0] as const, [2, pty?.cols ?? 0] as const];
	link.send(
		encodeFrame(
			frameType.exec,
			id,
			[1, flags],
			...size,
			...counts,
			strings.subarray(at),
		),
	);
}

/** A stream of what comes out. Destroying it early only means that nobody listens. */
function readable(outlet: ReturnType<typeof openOutlet>): Readable {
	const stream = new Readable({
		highWaterMark: 1,
		read: outlet.read,
		destroy: (error, callback) => {
			outlet.drain();
			callback(error);
		},
	});
	// Whoever reads it hears of an error; without a reader it must not end the worker.
	stream.on("error", () => undefined);
	return stream;
}

async function put(
	link: GuestLink,
	path: string,
	content: Uint8Array | Readable,
	{ size, mode = 0o644 }: { size: number; mode?: number },
) {
	const name = guestBytes(path, "The path");
	if (content instanceof Uint8Array && content.length !== size) {
		throw new RangeError(
			`${path} was announced with ${size} bytes and has ${content.length}`,
		);
	}
	const { promise, resolve, reject } = Promise.withResolvers<void>();
	const over = (error?: Error) => {
		inlet.finish();
		if (error) sink?.destroy(error);
		if (error) reject(error);
		else resolve();
	};
	const id = link.open({
		name: "put",
		credit: (bytes) => inlet.credit(bytes),
		done: () => over(),
		error: (code, text) => over(fileRefused(code, path, text)),
		lost: over,
	});
	const inlet = openInlet(link, id);
	let sink: Writable | undefined;
	link.send(encodeFrame(frameType.put, id, [4, mode], [8, size], name));
	if (content instanceof Uint8Array) {
		inlet.write(content, () => undefined);
		inlet.end();
	} else {
		sink = new Writable({
			write: (chunk: Buffer, _, callback) => inlet.write(chunk, callback),
			final: (callback) => {
				inlet.end();
				callback();
			},
		});
		pipeline(content, sink).catch((error: Error) => {
			if (link.isOpen(id)) link.send(encodeFrame(frameType.cancel, id));
			reject(error);
		});
	}
	await promise;
}

function get(
	link: GuestLink,
	path: string,
	{ maxBytes }: { maxBytes: number },
) {
	return new Promise<{ size: number; content: Readable }>((resolve, reject) => {
		let size: number | undefined;
		let received = 0;
		const id = link.open({
			name: "get",
			opened: (payload) => {
				if (size !== undefined || payload.length !== 8)
					throw new ProtocolBreach("a file was opened twice or badly");
				const announced = payload.readBigUInt64BE(0);
				if (announced > maxBytes)
					throw new ProtocolBreach(
						`a file of ${announced} bytes where ${maxBytes} may come`,
					);
				size = Number(announced);
				resolve({ size, content });
			},
			data: (which, bytes) => {
				received += bytes.length;
				if (which !== 1 || size === undefined || received > size) {
					throw new ProtocolBreach("more of a file than was announced");
				}
				outlet.data(bytes);
			},
			end: (which) => {
				if (which !== 1 || received !== size)
					throw new ProtocolBreach("less of a file than was announced");
				outlet.end();
			},
			done: () => {
				if (!outlet.ended)
					throw new ProtocolBreach("get was done before the end of the file");
			},
			error: (code, text) => fail(fileRefused(code, path, text)),
			lost: (error) => fail(error),
		});
		const fail = (error: Error) => {
			content.destroy(error);
			reject(error);
		};
		const outlet = openOutlet(link, id, 1, () => content);
		const content = readable(outlet);
		content.on("close", () => {
			if (link.isOpen(id) && !outlet.ended)
				link.send(encodeFrame(frameType.cancel, id));
		});
		link.send(
			encodeFrame(
				frameType.get,
				id,
				[8, Math.min(maxBytes, Number.MAX_SAFE_INTEGER)],
				guestBytes(path, "The path"),
			),
		);
	});
}

const fileReasons = {
	1: "not-found",
	2: "not-regular",
	3: "link",
	4: "too-large",
} as const;

function fileRefused(code: number, path: string, text: string): FileRefused {
	const reason = fileReasons[code as keyof typeof fileReasons] ?? "io";
	return new FileRefused(reason, `The sandbox refused ${path}: ${text}`);
}

function connect(link: GuestLink, port: number) {
	return new Promise<Duplex>((resolve, reject) => {
		let opened = false;
		const id = link.open({
			name: "connect",
			opened: (payload) => {
				if (opened || payload.length > 0)
					throw new ProtocolBreach("a port was opened twice or badly");
				opened = true;
				resolve(duplex);
			},
			data: (which, bytes) => {
				if (which !== 1 || !opened)
					throw new ProtocolBreach("data of a connection that is not open");
				outlet.data(bytes);
			},
			end: (which) => {
				if (which !== 1 || !opened)
					throw new ProtocolBreach("the end of a connection that is not open");
				outlet.end();
			},
			credit: (bytes) => inlet.credit(bytes),
			done: () => {
				if (!outlet.ended)
					throw new ProtocolBreach(
						"connect was done before the end of its data",
					);
				inlet.finish();
			},
			error: (_, text) =>
				fail(
					new GuestRefused(
						`Nothing in the sandbox listens on port ${port}: ${text}`,
					),
				),
			lost: (error: SandboxLost) => fail(error),
		});
		const fail = (error: Error) => {
			inlet.finish();
			duplex.destroy(error);
			reject(error);
		};
		const inlet = openInlet(link, id);
		const outlet = openOutlet(link, id, 1, () => duplex);
		const duplex: Duplex = new Duplex({
			readableHighWaterMark: 1,
			read: outlet.read,
			write: (chunk: Buffer, _, callback) => inlet.write(chunk, callback),
			final: (callback) => {
				inlet.end();
				callback();
			},
			destroy: (error, callback) => {
				outlet.drain();
				if (link.isOpen(id) && !(outlet.ended && duplex.writableFinished))
					link.send(encodeFrame(frameType.cancel, id));
				callback(error);
			},
		});
		// Whoever reads it hears of an error; without a reader it must not end the worker.
		duplex.on("error", () => undefined);
		link.send(encodeFrame(frameType.connect, id, [2, port]));
	});
}

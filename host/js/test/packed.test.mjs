// The packed file stands alone: installed outside of the workspace, it runs, has types, and its README tells the truth.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { ownPrefix, redisUrl } from './support/servers.mjs';

const run = promisify(execFile);
const here = fileURLToPath(new URL('../', import.meta.url));
const root = fileURLToPath(new URL('../../../', import.meta.url));
const readme = await readFile(join(here, 'README.md'), 'utf8');

/** The blocks of the README in a language, with what stands beside it. */
const blocks = [...readme.matchAll(/```(js|ts|html|sh)( \w+)?\n([\s\S]*?)```/g)].map(([, language, kind, code]) => {
  return { language, kind: kind?.trim(), code };
});

describe('the packed file', () => {
  let folder;
  const node = (file) => run(process.execPath, [file], { cwd: folder });

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'circuitry-packed-'));
    const { stdout } = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], { cwd: here });
    const [{ filename }] = JSON.parse(stdout);
    await writeFile(join(folder, 'package.json'), JSON.stringify({ name: 'user', private: true, type: 'module' }));
    // Nothing else is needed, so nothing is asked for.
    const install = ['install', '--offline', '--no-audit', '--no-fund', `./${filename}`];
    await run('npm', install, { cwd: folder });
    // The clients of Redis are the user's.
    for (const name of ['redis', '@redis', 'ioredis', '@types']) {
      await symlink(join(here, 'node_modules', name), join(folder, 'node_modules', name));
    }
  });

  after(async () => {
    if (folder) await rm(folder, { recursive: true, force: true });
  });

  test('has all that is needed, and nothing else', async () => {
    const installed = join(folder, 'node_modules/circuitry');
    const files = await readdir(installed);
    assert.deepEqual(files.sort(), ['LICENSE-APACHE', 'LICENSE-MIT', 'README.md', 'dist', 'package.json']);
    const wasm = await readFile(join(installed, 'dist/circuitry.wasm'));
    assert.ok(wasm.equals(await readFile(join(root, 'host/component/circuitry.wasm'))), 'it is the component of the project');
    const digest = createHash('sha256').update(wasm).digest('hex');
    assert.equal((await readFile(join(installed, 'dist/circuitry.wasm.sha256'), 'utf8')).trim(), digest);
    const script = await readFile(join(installed, 'dist/swap.lua'));
    assert.ok(script.equals(await readFile(join(root, 'host/redis/src/swap.lua'))), 'it is the script of every host');
    const { SWAP_SCRIPT, SWAP_SHA1 } = await import('../dist/redis.js');
    assert.equal(SWAP_SCRIPT, script.toString());
    assert.equal(SWAP_SHA1, createHash('sha1').update(script).digest('hex'));
    const { COMPONENT_SHA256 } = await import('../dist/index.js');
    assert.equal(COMPONENT_SHA256, digest);
    const { dependencies } = JSON.parse(await readFile(join(installed, 'package.json'), 'utf8'));
    assert.equal(dependencies, undefined);
  });

  test('runs, and resolves what it exports', async () => {
    await writeFile(
      join(folder, 'program.mjs'),
      `import { createFactory } from 'circuitry';
       import { createRequire } from 'node:module';
       const { resolve } = createRequire(import.meta.url);
       for (const path of ['circuitry.wasm', 'circuitry.wasm.sha256', 'swap.lua']) resolve('circuitry/' + path);
       const breaker = (await createFactory({ failureCountThreshold: 0 })).breaker('a');
       await (await breaker.start()).end('failure');
       console.log(await breaker.state());`,
    );
    assert.equal((await node('program.mjs')).stdout.trim(), 'open');
  });

  test('without the clients of Redis runs too, and says what to install', async () => {
    const alone = join(folder, 'alone');
    await mkdir(join(alone, 'node_modules'), { recursive: true });
    await run('cp', ['-r', join(folder, 'node_modules/circuitry'), join(alone, 'node_modules/circuitry')]);
    // A folder of its own, outside of the one that has them.
    const apart = await mkdtemp(join(tmpdir(), 'circuitry-alone-'));
    await run('cp', ['-r', join(alone, 'node_modules'), apart]);
    await writeFile(
      join(apart, 'program.mjs'),
      `import 'circuitry';
       import { RedisStore } from 'circuitry/redis';
       console.log(await RedisStore.connect('redis://127.0.0.1:1').catch((error) => error.message));`,
    );
    const { stdout } = await run(process.execPath, ['program.mjs'], { cwd: apart });
    assert.match(stdout, /npm install redis/);
    await rm(apart, { recursive: true, force: true });
  });

  test('has types, which strict TypeScript takes', async () => {
    const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
    await writeFile(join(folder, 'usage.mts'), await readFile(join(here, 'test/types/usage.ts'), 'utf8'));
    const compile = async (name, code, lib, types) => {
      const strict = { strict: true, noEmit: true, target: 'ES2022', module: 'NodeNext', exactOptionalPropertyTypes: true };
      const config = { compilerOptions: { ...strict, lib, types }, files: [`${name}.mts`] };
      await writeFile(join(folder, `${name}.mts`), code);
      await writeFile(join(folder, `${name}.json`), JSON.stringify(config));
      const told = await run(process.execPath, [tsc, '-p', `${name}.json`], { cwd: folder }).catch((error) => error);
      return told.stdout;
    };
    // Also the declarations themselves are looked at, in Node and, without what is Node's, in a browser.
    const usage = await readFile(join(here, 'test/types/usage.ts'), 'utf8');
    assert.equal(await compile('usage', usage, ['ES2022'], ['node']), '');
    const browser = "import { createFactory } from 'circuitry';\nvoid (await (await createFactory()).breaker('a').start()).isProbe;\n";
    assert.equal(await compile('browser', browser, ['ES2022', 'DOM'], []), '');
    const wrong = "import { createFactory } from 'circuitry';\nawait createFactory({ closeTreshold: 1 });\n";
    assert.match(await compile('wrong', wrong, ['ES2022', 'DOM'], []), /closeTreshold/);
  });

  const examples = blocks.filter(({ language }) => language === 'js');
  for (const [index, { code, kind }] of examples.entries()) {
    test(`example ${index + 1} of the README runs: ${code.split('\n').find((line) => line && !line.startsWith('import')) ?? ''}`, async () => {
      if (kind === 'bare') {
        const lines = code.trimEnd().split('\n');
        assert.ok(lines.length <= 30, `it is said to have 30 lines, and has ${lines.length}`);
        const command = blocks.find(({ language, code: text }) => language === 'sh' && text.includes('jco transpile'));
        const args = /jco transpile (.*)/.exec(command.code)[1].split(' ');
        await run(join(here, 'node_modules/.bin/jco'), ['transpile', ...args], { cwd: folder });
      }
      const text = code.replaceAll('redis://127.0.0.1:6379', redisUrl()).replaceAll("'billing:'", JSON.stringify(ownPrefix()));
      const file = `example-${index + 1}.mjs`;
      await writeFile(join(folder, file), text);
      const { stdout, stderr } = await node(file);
      assert.equal(stderr, '');
      // A comment behind a call of console.log says what it shows.
      for (const [, said] of code.matchAll(/console\.log\(.*\); \/\/ (.+)$/gm)) {
        assert.ok(stdout.includes(said.trim()), `it says ${said}, and shows ${stdout}`);
      }
    });
  }

  test('the README names every setting and every error', async () => {
    const options = await readFile(join(here, 'src/settings.ts'), 'utf8');
    const names = [.../const OPTIONS[^{]*\{([^}]*)\}/.exec(options)[1].matchAll(/(\w+): true/g)].map(([, name]) => name);
    assert.ok(names.length > 25);
    for (const name of names) assert.ok(readme.includes(`\`${name}\``), `the README does not name ${name}`);
    const exported = Object.keys(await import('../dist/index.js')).filter((name) => name.endsWith('Error'));
    for (const name of exported) assert.ok(readme.includes(`\`${name}`), `the README does not name ${name}`);
  });
});

// A build step as an action of GitHub's would have it: the real toolkit, and nothing of ours.
import * as core from '@actions/core';
import * as exec from '@actions/exec';
import * as glob from '@actions/glob';
import * as tools from '@actions/tool-cache';

const secret = process.env.DEPLOY_KEY;
core.setSecret(secret);
core.startGroup('What there is');
await exec.exec('git', ['--version']);
await exec.exec('make', ['--version'], { silent: true });
const sources = await (await glob.create('src/**/*.c')).glob();
core.info(`sources: ${sources.length}`);
core.endGroup();

await core.group('Build', async () => {
	await exec.exec('make', ['hello']);
	const hello = await exec.getExecOutput('./hello', ['world'], { silent: true });
	core.info(`hello says: ${hello.stdout.trim()}`);
});
core.info(`deploying with ${secret}`);
core.warning('this compiler is old', { file: 'src/hello.c', startLine: 4, title: 'Compiler' });

const kept = await tools.cacheFile('hello', 'hello', 'hello', '1.2.3');
core.info(`tool cache: ${tools.find('hello', '1.2.3') === kept}`);
core.setOutput('sources', sources.length);

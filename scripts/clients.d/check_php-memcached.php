<?php
// PHP's memcached extension: libmemcached underneath, in text and in binary, with PHP's types in the flags.
declare(strict_types=1);

const LONGEST_KEY = 250;
$count = 0;

function short(mixed $value): string
{
    return substr(var_export($value, true), 0, 200);
}

function same(mixed $got, mixed $want, string $what = ''): void
{
    global $count;
    $count++;
    if ($got !== $want) {
        throw new Exception("$what: got " . short($got) . ', want ' . short($want));
    }
}

/** Bytes that look random, the same in every run. */
function noise(int $size): string
{
    return openssl_encrypt(str_repeat("\0", $size), 'aes-128-ctr', str_repeat("\0", 16), OPENSSL_RAW_DATA, str_repeat("\0", 16));
}

/** Whether the server's statistics name ketch. */
function is_ketch(string $server, int $port): bool
{
    $peer = fsockopen($server, $port);
    fwrite($peer, "stats\r\nquit\r\n");
    return str_contains(stream_get_contents($peer), 'STAT ketch_version');
}

function check(string $server, int $port, bool $binary): void
{
    $client = function () use ($server, $port, $binary): Memcached {
        $mc = new Memcached();
        $mc->setOptions([
            Memcached::OPT_BINARY_PROTOCOL => $binary,
            Memcached::OPT_COMPRESSION => false,
            Memcached::OPT_TCP_NODELAY => true,
            Memcached::OPT_RECV_TIMEOUT => 10_000_000,
            Memcached::OPT_SEND_TIMEOUT => 10_000_000,
            Memcached::OPT_POLL_TIMEOUT => 10_000,
        ]);
        $mc->addServer($server, $port);
        return $mc;
    };
    $mc = $client();
    // A call that must fail, and how.
    $fails = function (mixed $got, int $code, string $what = '') use ($mc): void {
        same($got, false, $what);
        same($mc->getResultCode(), $code, "$what: " . $mc->getResultMessage());
    };

    // Storing and reading many.
    $many = [];
    for ($i = 0; $i < 100; $i++) {
        $many["many:$i"] = "value $i";
    }
    same($mc->setMulti($many), true);
    $keys = array_keys($many);
    same($mc->getMulti([...$keys, 'absent'], Memcached::GET_PRESERVE_ORDER), $many + ['absent' => null]);
    $extended = $mc->getMulti($keys, Memcached::GET_EXTENDED);
    same(count(array_unique(array_column($extended, 'cas'))), 100, 'each store has a unique of its own');
    same($mc->getDelayed(['many:1', 'absent', 'many:2'], true), true);
    $delayed = array_column($mc->fetchAll(), 'value', 'key');
    same($delayed, ['many:1' => 'value 1', 'many:2' => 'value 2']);
    same($mc->deleteMulti($keys), array_fill_keys($keys, true));
    same($mc->getMulti($keys), []);
    $fails($mc->get('absent'), Memcached::RES_NOTFOUND);

    // add, replace, append, prepend.
    $stored = $binary ? Memcached::RES_DATA_EXISTS : Memcached::RES_NOTSTORED;
    $missing = $binary ? Memcached::RES_NOTFOUND : Memcached::RES_NOTSTORED;
    same($mc->add('mode', 'b'), true);
    $fails($mc->add('mode', 'x'), $stored, 'add');
    same($mc->replace('mode', 'c'), true);
    $fails($mc->replace('absent', 'x'), $missing, 'replace');
    same($mc->append('mode', 'd'), true);
    same($mc->prepend('mode', 'a'), true);
    same($mc->get('mode'), 'acd');
    $fails($mc->append('absent', 'x'), Memcached::RES_NOTSTORED, 'append');
    $fails($mc->prepend('absent', 'x'), Memcached::RES_NOTSTORED, 'prepend');

    // cas.
    $mc->set('cas', 'one');
    $unique = $mc->get('cas', null, Memcached::GET_EXTENDED)['cas'];
    same($mc->cas($unique, 'cas', 'two'), true);
    $fails($mc->cas($unique, 'cas', 'three'), Memcached::RES_DATA_EXISTS, 'a unique is good for one store');
    same($mc->get('cas'), 'two');
    $fails($mc->cas($unique, 'absent', 'x'), Memcached::RES_NOTFOUND, 'cas');

    // increment, decrement. With an initial value only in binary.
    $mc->set('n', 10);
    same($mc->increment('n', 5), 15);
    same($mc->decrement('n', 6), 9);
    same($mc->decrement('n', 100), 0);
    same((int) $mc->get('n'), 0);
    $fails($mc->increment('no_number'), Memcached::RES_NOTFOUND, 'increment');
    $fails($mc->decrement('no_number'), Memcached::RES_NOTFOUND, 'decrement');
    $mc->set('wrap', '18446744073709551615');
    same($mc->increment('wrap', 2), 1, 'wraps at 2^64');
    $mc->set('word', 'abc');
    same($mc->increment('word'), false);
    same($mc->get('word'), 'abc');
    if ($binary) {
        same($mc->increment('initial', 5, 10), 10);
        same($mc->increment('initial', 5, 10), 15);
        same($mc->decrement('initial', 1, 10), 14);
    }

    // touch, expiry.
    $mc->set('t', 'v');
    same($mc->touch('t', 100), true);
    $fails($mc->touch('absent', 100), Memcached::RES_NOTFOUND, 'touch');
    same($mc->get('t'), 'v');
    same($mc->touch('t', time() - 7 * 24 * 3600), true);
    $fails($mc->get('t'), Memcached::RES_NOTFOUND, 'touched into the past');
    $past = ['long_ago' => time() - 7 * 24 * 3600];
    if ($binary) {
        // The wire has no sign: a -1 is a time in 2106 for memcached, and over at once for ketch, as in text.
        same($mc->set('unsigned', 'v', -1), true);
        same($mc->get('unsigned'), is_ketch($server, $port) ? false : 'v');
    } else {
        $past['minus_one'] = -1;
    }
    foreach ($past as $key => $when) {
        same($mc->set($key, 'v', $when), true);
        $fails($mc->get($key), Memcached::RES_NOTFOUND, $key);
        same($mc->add($key, 'v', time() + 1000), true, "$key can be added");
        same($mc->get($key), 'v', 'a time in the future');
    }
    $mc->setMulti(['short:1' => 'v', 'short:2' => 'v'], 1);
    $end = microtime(true) + 10;
    while ($mc->getMulti(['short:1', 'short:2']) !== []) {
        if (microtime(true) > $end) {
            throw new Exception('a second is not over after 10 s');
        }
        usleep(50_000);
    }
    $fails($mc->replace('short:1', 'v'), $missing, 'expired');

    // delete.
    $mc->set('d', 'v');
    same($mc->delete('d'), true);
    $fails($mc->delete('d'), Memcached::RES_NOTFOUND, 'delete');

    // Large values.
    $large = noise(900 * 1024);
    same($mc->set('large', $large), true);
    same($mc->get('large') === $large, true, '900 KB, byte for byte');
    same($mc->append('large', 'tail'), true);
    same($mc->get('large') === $large . 'tail', true, 'and a tail');
    $fails($mc->set('large', noise(2 * 1024 * 1024)), Memcached::RES_E2BIG, 'too large');
    $fails($mc->get('large'), Memcached::RES_NOTFOUND, 'a refused set leaves no old value');
    same($mc->set('after', 'v'), true);
    same($mc->get('after'), 'v');

    // Keys. What is too long, or in text not plain ASCII, the client refuses on its own.
    $longest = str_repeat('k', LONGEST_KEY);
    same($mc->set($longest, 'v'), true);
    same($mc->getMulti([$longest, 'after']), [$longest => 'v', 'after' => 'v']);
    same($mc->get($longest . 'k'), false);
    same($mc->set('schlüssel', 'v'), $binary);
    same($mc->get('schlüssel'), $binary ? 'v' : false);

    // Types, and the user's half of the flags.
    foreach ([7, -7, 1.5, true, false, 'text', '', ['a' => [1, null]], null] as $number => $thing) {
        same($mc->set("typed:$number", $thing), true);
        same($mc->get("typed:$number"), $thing);
        same($mc->getResultCode(), Memcached::RES_SUCCESS);
    }
    $mc->setOption(Memcached::OPT_USER_FLAGS, 65535);
    same($mc->set('flags', 'v'), true);
    same($mc->get('flags', null, Memcached::GET_EXTENDED)['flags'], 65535);
    $squeezing = $client();
    $squeezing->setOption(Memcached::OPT_COMPRESSION, true);
    same($squeezing->set('squeezed', str_repeat('long ', 10000)), true);
    same($squeezing->get('squeezed'), str_repeat('long ', 10000));

    // Nothing comes back, or nothing is sent until a get.
    foreach ([Memcached::OPT_NOREPLY, Memcached::OPT_BUFFER_WRITES] as $option) {
        $quiet = $client();
        $quiet->setOption($option, true);
        foreach ($many as $key => $value) {
            $quiet->set($key, "$option $value");
        }
        $quiet->delete('many:0');
        if ($option === Memcached::OPT_NOREPLY) {
            $quiet->setOption($option, false);
        }
        same($quiet->get('many:99'), "$option value 99");
        same($quiet->get('many:0'), false);
        $quiet->quit();
    }

    // stats, version, flush.
    $stats = $mc->getStats()["$server:$port"];
    same($stats['pid'] > 0 && $stats['curr_items'] > 0, true, 'stats');
    same((int) $mc->getStats('settings')["$server:$port"]['item_size_max'], 1 << 20);
    same(substr_count($mc->getVersion()["$server:$port"], '.'), 2);
    same($mc->flush(), true);
    $fails($mc->get('after'), Memcached::RES_NOTFOUND, 'flushed');
    same($mc->set('after', 'flush'), true);
    same($mc->get('after'), 'flush', 'a store in the same second as flush lives');
    same($mc->quit(), true);
    same($mc->get('after'), 'flush', 'connects again');
}

foreach ([false, true] as $binary) {
    try {
        check('127.0.0.1', (int) $argv[1], $binary);
    } catch (Throwable $error) {
        fwrite(STDERR, ($binary ? 'binary' : 'text') . ": $error\n");
        exit(1);
    }
}
echo 'ok php-memcached ', phpversion('memcached'), ", text and binary ($count checks)\n";

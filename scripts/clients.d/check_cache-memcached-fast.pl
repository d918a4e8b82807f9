# Cache::Memcached::Fast: text from Perl and C, every command also for many keys at a time, and noreply
# where nobody looks at the answer.
use strict;
use warnings;
use Cache::Memcached::Fast;
use Time::HiRes qw(sleep time);

my $server = "127.0.0.1:$ARGV[0]";
my $count  = 0;

sub text {
    my ($value) = @_;
    return 'undef' unless defined $value;
    return '[' . join(', ', map { text($_) } @$value) . ']' if ref $value eq 'ARRAY';
    return '{' . join(', ', map { "$_: " . text($value->{$_}) } sort keys %$value) . '}' if ref $value eq 'HASH';
    return "'$value'";
}

# One check: the same value, with undef, false ('') and 0 told apart.
sub same {
    my ($got, $want, $what) = @_;
    $count++;
    ($got, $want) = (text($got), text($want));
    return if $got eq $want;
    my (undef, undef, $line) = caller;
    die 'line ', $line, ': ', $what // '', ': got ', substr($got, 0, 200), ', want ', substr($want, 0, 200), "\n";
}

# Bytes that look random, the same in every run.
sub noise {
    my ($size) = @_;
    srand(900);
    return pack 'C*', map { int rand 256 } 1 .. $size;
}

sub client {
    return Cache::Memcached::Fast->new(
        { servers => [$server], io_timeout => 10, max_size => 4 * 1024 * 1024, @_ });
}

my $mc = client();

# Storing and reading many, one pipeline each.
my %many = map { ("many:$_" => "value $_") } 0 .. 99;
my @keys = sort keys %many;
my %done = map { ($_ => 1) } @keys;
same(scalar $mc->set_multi(map { [$_, $many{$_}] } @keys), \%done);
same($mc->get_multi(@keys, 'absent'), \%many);
my $uniques = $mc->gets_multi(@keys);
my %distinct = map { ($_->[0] => 1) } values %$uniques;
same(scalar(keys %distinct), 100, 'each store has a unique of its own');
same(scalar $mc->cas_multi(map { [$_, $uniques->{$_}[0], "new $_"] } @keys), \%done);
same(scalar $mc->add_multi(['many:0', 'x'], ['fresh', 'y']), { 'many:0' => '', fresh => 1 });
same(scalar $mc->replace_multi(['many:0', 'x'], ['absent', 'y']), { 'many:0' => 1, absent => '' });
same(scalar $mc->append_multi(['many:0', 'y'], ['absent', 'y']), { 'many:0' => 1, absent => '' });
same(scalar $mc->prepend_multi(['many:0', 'w'], ['absent', 'y']), { 'many:0' => 1, absent => '' });
same($mc->get_multi('many:0', 'many:1', 'fresh'), { 'many:0' => 'wxy', 'many:1' => 'new many:1', fresh => 'y' });
same(scalar $mc->touch_multi(['many:0', 100], ['absent', 100]), { 'many:0' => 1, absent => '' });
same(scalar $mc->delete_multi(@keys, 'absent'), { %done, absent => '' });
same($mc->get_multi(@keys), {});
same(scalar $mc->get('absent'), undef);

# add, replace, append, prepend.
same($mc->add('mode', 'b'), 1);
same($mc->add('mode', 'x'), '');
same($mc->replace('mode', 'c'), 1);
same($mc->replace('absent', 'x'), '');
same($mc->append('mode', 'd'), 1);
same($mc->prepend('mode', 'a'), 1);
same($mc->get('mode'), 'acd');
same($mc->append('absent', 'x'), '');
same($mc->prepend('absent', 'x'), '');

# cas.
$mc->set('cas', 'one');
my $unique = $mc->gets('cas')->[0];
same($mc->cas('cas', $unique, 'two'), 1);
same($mc->cas('cas', $unique, 'three'), '', 'a unique is good for one store');
same($mc->gets('cas')->[1], 'two');
same($mc->cas('absent', $unique, 'x'), '');
same(scalar $mc->gets('absent'), undef);

# incr, decr.
$mc->set('n', 10);
same($mc->incr('n', 5), 15);
same($mc->decr('n', 6), 9);
same($mc->decr('n', 100), '0E0');
same($mc->incr('n'), 1);
same($mc->incr('absent'), '');
same($mc->decr('absent'), '');
same(scalar $mc->incr_multi('n', ['n', 5], 'absent'), { n => 7, absent => '' });
$mc->set('n', '18446744073709551615');
same($mc->incr('n', 2), 1, 'wraps at 2^64');
$mc->set('word', 'abc');
same(scalar $mc->incr('word'), undef);
same(scalar $mc->decr('word'), undef);
same($mc->get('word'), 'abc');

# touch, gat, gats, expiry.
$mc->set('t', 'v');
same($mc->touch('t', 100), 1);
same($mc->touch('absent', 100), '');
same($mc->get('t'), 'v');
same($mc->gat(100, 't'), 'v');
same(scalar $mc->gat(100, 'absent'), undef);
same($mc->gat_multi(100, 't', 'absent', 'word'), { t => 'v', word => 'abc' });
same($mc->gats(100, 't')->[1], 'v');
same($mc->gats_multi(100, 't', 'absent')->{t}[1], 'v');
same($mc->touch('t', -1), 1);
same(scalar $mc->get('t'), undef, 'touched into the past');
for my $when (-1, int(time) - 7 * 24 * 3600) {
    same($mc->set('past', 'v', $when), 1);
    same(scalar $mc->get('past'), undef, "expiry $when");
    same($mc->add('past', 'v', int(time) + 1000), 1, 'the past can be added');
    same($mc->get('past'), 'v', 'a time in the future');
}
$mc->set_multi(['short:1', 'v', 1], ['short:2', 'v', 1]);
my $end = time + 10;
while (%{ $mc->get_multi('short:1', 'short:2') }) {
    die "a second is not over after 10 s\n" if time > $end;
    sleep 0.05;
}
same($mc->replace('short:1', 'v'), '');

# delete.
$mc->set('d', 'v');
same($mc->delete('d'), 1);
same($mc->delete('d'), '');

# Large values.
my $large = noise(900 * 1024);
same($mc->set('large', $large), 1);
same($mc->get('large') eq $large, 1, '900 KB, byte for byte');
same($mc->append('large', 'tail'), 1);
same($mc->get('large') eq "${large}tail", 1, 'and a tail');
# The client gives up a connection on an error; with this one it stays.
my $stays = client(close_on_error => 0);
for my $of ($mc, $stays) {
    $of->set('large', 'old');
    same(scalar $of->set('large', noise(2 * 1024 * 1024)), undef, 'too large');
    same(scalar $of->get('large'), undef, 'a refused set leaves no old value');
    same($of->set('after', 'v'), 1);
    same($of->get('after'), 'v');
}

# Keys.
my $longest = 'k' x 250;
same($mc->set($longest, 'v'), 1);
same($mc->get_multi($longest, 'after'), { $longest => 'v', after => 'v' });
same(scalar $mc->set("${longest}k", 'v'), undef);
same(scalar client()->get("${longest}k"), undef);
same($mc->set("schl\xc3\xbcssel", 'v'), 1);
same($mc->get("schl\xc3\xbcssel"), 'v');
my $prefixed = client(namespace => 'space:');
same($prefixed->set('after', 'other'), 1);
same($prefixed->get_multi('after'), { after => 'other' });
same($mc->get('space:after'), 'other');

# What the client keeps in the flags: frozen structures, and UTF-8.
same($mc->set('frozen', { a => [1, undef] }), 1);
same($mc->get('frozen'), { a => [1, undef] });
my $unicode = client(utf8 => 1);
same($unicode->set('utf8', "\x{20ac}"), 1);
same($unicode->get('utf8') eq "\x{20ac}", 1);
same($mc->get('utf8'), "\xe2\x82\xac");

# Nobody looks at the answers: noreply, and nothing may come back.
my $quiet = client(nowait => 1);
$quiet->set($_, "quiet $many{$_}") for @keys;
$quiet->delete('many:0');
$quiet->delete('absent');
$quiet->add('many:1', 'x');
$quiet->append('many:1', '!');
$quiet->set('n', 1);
$quiet->incr('n', 5);
$quiet->decr('absent');
$quiet->touch('many:2', -1);
$quiet->nowait_push;
same($quiet->get_multi('many:0', 'many:1', 'many:2', 'n'), { 'many:1' => 'quiet value 1!', n => 6 });
same($quiet->get('many:99'), 'quiet value 99');

# version, flush_all.
same($mc->server_versions->{$server} =~ /^\d+\.\d+\.\d+/ ? 1 : 0, 1, 'version');
same($mc->flush_all, { $server => 1 });
same(scalar $mc->get('after'), undef);
same($mc->set('after', 'flush'), 1);
same($mc->get('after'), 'flush', 'a store in the same second as flush_all lives');
$mc->disconnect_all;
same($mc->get('after'), 'flush', 'connects again');

print "ok Cache::Memcached::Fast $Cache::Memcached::Fast::VERSION ($count checks)\n";

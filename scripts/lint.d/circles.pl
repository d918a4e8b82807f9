#!/usr/bin/env perl
# No two files of a room import each other, not over others either: who reads one of them would have to read all. Prints the
# circles; the working directory is the root. A file may take up a type of the module above it (`conn/closing.rs` that of
# `conn/mod.rs`): what a child imports from its parents is no arrow. Tests are left out.
use strict;
use warnings;

# Roots of modules, by the crate's folder.
my @crates = @ARGV ? @ARGV : ('src');
for my $crate (@crates) {
    my (%file, %exports, %uses);
    for my $path (split /\n/, `git ls-files -co --exclude-standard '$crate/*.rs' '$crate/**/*.rs'`) {
        next if $path =~ m{(^|/)(tests|testing|simulation)(/|\.rs$)|_tests\.rs$|/main\.rs$} || !-e $path;
        (my $module = $path) =~ s{^\Q$crate\E/}{};
        $module =~ s{\.rs$}{};
        $module =~ s{(^|/)(mod|lib)$}{};
        $file{$module} = $path;
    }
    for my $module (keys %file) {
        open my $in, '<', $file{$module} or next;
        local $/;
        my $text = <$in>;
        # From the tests on, a file speaks of anything.
        $text =~ s/^#\[cfg\(test\)\]\s*mod \w+ \{.*//ms;
        $text =~ s{//[^\n]*}{}g;
        $text =~ s{"(\\.|[^"\\])*"}{""}g;
        while ($text =~ /^\s*(pub(?:\([a-z :]+\))?\s+)?use\s+([^;]+);/mg) {
            my ($public, $tree) = ($1, $2);
            $tree =~ s/\s+/ /g;
            for my $name (flat($tree)) {
                my $path = absolute($module, $name) // next;
                push @{$uses{$module}}, $path;
                $exports{$module}{(split m{/}, $path)[-1]} = $path if $public;
            }
        }
        $text =~ s/^\s*(pub(?:\([a-z :]+\))?\s+)?use\s+[^;]+;//mg;
        while ($text =~ /\b((?:crate|super|self)(?:::\w+)+)/g) {
            my $path = absolute($module, $1) // next;
            push @{$uses{$module}}, $path;
        }
    }
    # The module in whose file a name is, through what modules hand on.
    my $home;
    $home = sub {
        my ($path, $depth) = @_;
        my $module = $path;
        while (!exists $file{$module}) {
            return if $module eq '';
            $module =~ s{/?[^/]*$}{};
        }
        return $module if $depth > 5 || $module eq $path;
        (my $rest = substr $path, length $module) =~ s{^/}{};
        my ($first) = split m{/}, $rest;
        my $to = $exports{$module}{$first};
        return $to && $to ne $path ? $home->($to, $depth + 1) : $module;
    };
    my %arrows;
    for my $module (keys %uses) {
        for my $path (@{$uses{$module}}) {
            my $to = $home->($path, 0);
            next if !defined $to || $to eq $module || $to eq '';
            # Of one room, and not from a child to its parents.
            next if room($to) ne room($module) || $module =~ m{^\Q$to\E/};
            $arrows{$module}{$to} = 1;
        }
    }
    # What each reaches; a circle is who reaches itself.
    my %in_circle;
    for my $start (keys %arrows) {
        my %seen;
        my @next = keys %{$arrows{$start}};
        while (defined(my $at = shift @next)) {
            next if $seen{$at}++;
            push @next, keys %{$arrows{$at}};
        }
        $in_circle{$start} = \%seen if $seen{$start};
    }
    my %told;
    for my $module (sort keys %in_circle) {
        my @with = grep { $in_circle{$module}{$_} && $in_circle{$_} && $in_circle{$_}{$module} } sort keys %in_circle;
        my $circle = join ' ', map { $file{$_} } @with;
        next if $told{$circle}++;
        my @arrows = map { my $from = $_; map { "$from -> $_" } grep { $in_circle{$_} && $in_circle{$_}{$from} } sort keys %{$arrows{$from}} } @with;
        print "a circle: $circle (@{[join ', ', @arrows]})\n";
    }
}

sub room { (split m{/}, $_[0])[0] }

# Each name of a `use` tree.
sub flat {
    my ($tree) = @_;
    $tree =~ s/^\s+|\s+$//g;
    if ($tree =~ /^(.*?)\{(.*)\}$/s) {
        my ($head, $inner, $depth, @parts) = ($1, $2, 0, '');
        for my $c (split //, $inner) {
            $depth++ if $c eq '{';
            $depth-- if $c eq '}';
            if ($c eq ',' && !$depth) { push @parts, '' } else { $parts[-1] .= $c }
        }
        return map { flat("$head$_") } map { s/^\s+|\s+$//gr } grep { /\S/ } @parts;
    }
    $tree =~ s/ as \w+$//;
    $tree =~ s/::self$//;
    return $tree;
}

# A name as the path of a module and what is in it; nothing for those of other crates.
sub absolute {
    my ($module, $name) = @_;
    my @parts = split /::/, $name =~ s/\s//gr;
    my @at = split m{/}, $module;
    if ($parts[0] eq 'crate') { shift @parts; @at = () }
    elsif ($parts[0] eq 'self') { shift @parts }
    elsif ($parts[0] ne 'super') { return }
    while (@parts && $parts[0] eq 'super') { shift @parts; pop @at }
    return join '/', @at, grep { $_ ne '*' } @parts;
}

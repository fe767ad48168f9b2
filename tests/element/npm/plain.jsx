import 'live-likes';
